#include "tests/cuda/device_memory.h"

#include <cuda_runtime.h>

#include <set>

#include "core/base/status.h"

namespace tw {
namespace {

void Succeeds(cudaError_t error) {
  if (error != cudaSuccess) ADD_FAILURE() << cudaGetErrorString(error);
}

class GpuMemory : public KernelMemory {
 public:
  GpuMemory() { Succeeds(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~GpuMemory() override {
    for (void* memory : held_) cudaFree(memory);
    cudaStreamDestroy(stream_);
  }
  void* Allocate(size_t bytes) override {
    void* memory = nullptr;
    Succeeds(cudaMalloc(&memory, bytes));
    held_.insert(memory);
    return memory;
  }
  void Free(void* memory) override {
    if (held_.erase(memory)) Succeeds(cudaFree(memory));
  }
  void CopyIn(void* device, const void* host, size_t bytes) override {
    Succeeds(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_));
    Succeeds(cudaStreamSynchronize(stream_));
  }
  void CopyOut(void* host, const void* device, size_t bytes) override {
    Succeeds(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_));
    Succeeds(cudaStreamSynchronize(stream_));
  }
  kernels::device::Stream stream() override {
    return reinterpret_cast<kernels::device::Stream>(stream_);
  }
  int64_t launches() override { return -1; }
  void SetSeed(uint64_t) override {}

 private:
  cudaStream_t stream_ = nullptr;
  std::set<void*> held_;
};

}  // namespace

std::unique_ptr<KernelMemory> KernelMemory::Open(std::string* why) {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    *why = std::string("no GPU: ") + cudaGetErrorString(error);
    return nullptr;
  }
  return std::make_unique<GpuMemory>();
}

}  // namespace tw
