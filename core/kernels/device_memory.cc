#include <cuda_runtime_api.h>

#include <algorithm>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

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
  CudaMemory(int device, std::function<void()> when_full)
      : device_(device), when_full_(std::move(when_full)) {}
  uint8_t* Allocate(size_t bytes) override {
    uint8_t* memory = Try(bytes);
    if (!memory) {
      GiveBack();
      memory = Try(bytes);
    }
    if (!memory && when_full_) {
      when_full_();
      memory = Try(bytes);
    }
    if (!memory) throw NoMemoryLeft(device_, bytes);
    return memory;
  }
  ~CudaMemory() override { GiveBack(); }
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;
  void Free(uint8_t* memory) override {
    std::lock_guard<std::mutex> lock(mutex_);
    freed_.push_back(memory);
  }
  void GiveBack() override {
    std::vector<uint8_t*> freed;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      freed.swap(freed_);
    }
    if (freed.empty()) return;
    cudaSetDevice(device_);
    cudaDeviceSynchronize();  // streams that do not wait for each other may all be at it
    for (uint8_t* memory : freed) cudaFree(memory);
    cudaGetLastError();  // queues tell what they found themselves
  }

 private:
  uint8_t* Try(size_t bytes) const {
    void* memory = nullptr;
    if (cudaSetDevice(device_) == cudaSuccess &&
        cudaMalloc(&memory, std::max<size_t>(bytes, 1)) == cudaSuccess) {
      return static_cast<uint8_t*>(memory);
    }
    cudaGetLastError();
    return nullptr;
  }

  const int device_;
  const std::function<void()> when_full_;
  std::mutex mutex_;
  std::vector<uint8_t*> freed_;
};

}  // namespace

StatusOr<std::unique_ptr<DeviceMemory>> MakeDeviceMemory(int device,
                                                         std::function<void()> when_full) {
  CudaErrors errors(device);
  errors.Succeeds(cudaSetDevice(device));
  TW_RETURN_IF_ERROR(errors.status());
  return std::make_unique<CudaMemory>(device, std::move(when_full));
}

}  // namespace tw::kernels
