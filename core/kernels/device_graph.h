#pragma once
// What a graph of a queue holds beside its nodes: tables and scratch of kernels, in memory of its
// own, as that of the queue is used again while the graph may be launched.

#include <cuda_runtime_api.h>

#include <vector>

#include "core/kernels/device_staging.h"

namespace tw::kernels {

class GraphMemory {
 public:
  GraphMemory(DeviceMemory& memory, cudaStream_t stream, CudaErrors& errors)
      : memory_(memory), stream_(stream), errors_(errors) {}
  ~GraphMemory();
  GraphMemory(const GraphMemory&) = delete;
  GraphMemory& operator=(const GraphMemory&) = delete;

  // Memory for a table, which Send copies to the device when the capture has ended.
  StagingRing::Piece Take(size_t bytes);
  // For one launch after the other; 0: that of the last one.
  uint8_t* Scratch(size_t bytes);
  // Copies what was taken; waits.
  void Send();
  // The first thing that a graph cannot do; null: nothing.
  const char* refused = nullptr;

 private:
  struct Part {
    uint8_t* host;
    DeviceBlock device;
    size_t used;
  };
  DeviceMemory& memory_;
  const cudaStream_t stream_;
  CudaErrors& errors_;
  std::vector<Part> parts_;
  std::vector<DeviceBlock> scratch_;  // the last one is the largest
};

}  // namespace tw::kernels
