#pragma once
// Memory through which a queue sends to its device, and memory that its kernels work in.

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/base/device.h"
#include "core/base/status.h"

namespace tw::kernels {

// The first error of the runtime's calls.
class CudaErrors {
 public:
  explicit CudaErrors(int device) : device_(device) {}
  // Whether the call has succeeded.
  bool Succeeds(cudaError_t error);
  void Note(const char* what);
  bool any() const { return !status_.ok(); }
  const Status& status() const { return status_; }

 private:
  const int device_;
  Status status_;
};

// Pinned memory of the host, and as much of the device, that are used in turn: what is written to a
// piece of the first is copied to the same place of the second by the stream. Parts are used anew
// when their copies are done, which an event for each tells; the device's side is in the stream's
// order anyhow.
class StagingRing {
 public:
  StagingRing(DeviceMemory& memory, cudaStream_t stream, CudaErrors& errors);
  ~StagingRing();
  StagingRing(const StagingRing&) = delete;
  StagingRing& operator=(const StagingRing&) = delete;

  struct Piece {
    uint8_t* host = nullptr;
    uint8_t* device = nullptr;
  };
  // A piece that may be copied from until the next call. Grows when the piece is larger than a
  // part.
  Piece Take(size_t bytes);
  size_t part_bytes() const { return part_bytes_; }
  // Frees what growing has left. REQUIRES: nothing is under way.
  void FreeOld();

 private:
  static constexpr size_t kParts = 8;
  struct Memory {
    uint8_t* host = nullptr;
    DeviceBlock device;
  };
  // As it is when there is no memory.
  void Grow(size_t part_bytes);

  DeviceMemory& memory_;
  const cudaStream_t stream_;
  CudaErrors& errors_;
  Memory now_;
  std::vector<Memory> old_;
  std::array<cudaEvent_t, kParts> left_{};       // recorded when the ring went on from a part
  size_t part_bytes_ = 0, part_ = 0, used_ = 0;  // used_: of the part
};

// Device memory that only grows, for one launch after the other.
class DeviceScratch {
 public:
  explicit DeviceScratch(DeviceMemory& memory) : memory_(memory) {}
  DeviceScratch(const DeviceScratch&) = delete;
  DeviceScratch& operator=(const DeviceScratch&) = delete;
  uint8_t* AtLeast(size_t bytes);

 private:
  DeviceMemory& memory_;
  DeviceBlock block_;
};

// Throws std::bad_alloc.
uint8_t* AllocatePinnedBytes(size_t bytes);

}  // namespace tw::kernels
