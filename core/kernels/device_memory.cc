#include <cuda_runtime_api.h>

#include <algorithm>
#include <new>
#include <string>

#include "core/kernels/device_queue.h"
#include "core/kernels/device_staging.h"

namespace tw::kernels {
namespace {

class NoMemoryLeft : public std::bad_alloc {
 public:
  NoMemoryLeft(int device, size_t bytes)
      : what_("GPU " + std::to_string(device) + " has no " + std::to_string(bytes) +
              " bytes left") {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  const std::string what_;
};

class CudaMemory : public DeviceMemory {
 public:
  explicit CudaMemory(int device) : device_(device) {}
  uint8_t* Allocate(size_t bytes) override {
    void* memory = nullptr;
    if (cudaSetDevice(device_) != cudaSuccess ||
        cudaMalloc(&memory, std::max<size_t>(bytes, 1)) != cudaSuccess) {
      cudaGetLastError();
      throw NoMemoryLeft(device_, bytes);
    }
    return static_cast<uint8_t*>(memory);
  }
  void Free(uint8_t* memory) override {
    cudaSetDevice(device_);
    cudaDeviceSynchronize();  // streams that do not wait for each other may all be at it
    cudaFree(memory);
    cudaGetLastError();  // queues tell what they found themselves
  }

 private:
  const int device_;
};

}  // namespace

StatusOr<std::unique_ptr<DeviceMemory>> MakeDeviceMemory(int device) {
  CudaErrors errors(device);
  errors.Succeeds(cudaSetDevice(device));
  TW_RETURN_IF_ERROR(errors.status());
  return std::make_unique<CudaMemory>(device);
}

}  // namespace tw::kernels
