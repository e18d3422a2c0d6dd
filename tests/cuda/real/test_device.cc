#include "tests/cuda/test_device.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <new>

namespace tw {
namespace {

constexpr size_t kGuard = 256;
constexpr uint8_t kNoise = 0xCD, kGuardByte = 0xA5;

void Succeeds(cudaError_t error) {
  if (error != cudaSuccess) ADD_FAILURE() << cudaGetErrorString(error);
}

// Bits of the devices that there was a TestDevice of.
std::atomic<uint64_t> used = 0;

void FinishAllStreams() {
  int before = 0;
  Succeeds(cudaGetDevice(&before));
  for (int device = 0; used >> device != 0; ++device) {
    if (!(used >> device & 1)) continue;
    Succeeds(cudaSetDevice(device));
    Succeeds(cudaDeviceSynchronize());
  }
  Succeeds(cudaSetDevice(before));
}

// Managed: the host reads and writes it too, where the device has done its work.
class ManagedMemory : public DeviceMemory {
 public:
  explicit ManagedMemory(int device) : device_(device) {}
  uint8_t* Allocate(size_t bytes) override {
    void* memory = nullptr;
    Succeeds(cudaSetDevice(device_));
    if (cudaMallocManaged(&memory, bytes + kGuard) != cudaSuccess) {
      cudaGetLastError();
      throw std::bad_alloc();
    }
    auto* const start = static_cast<uint8_t*>(memory);
    std::memset(start, kNoise, bytes);
    std::memset(start + bytes, kGuardByte, kGuard);
    std::lock_guard<std::mutex> lock(mutex_);
    pieces_[start] = bytes;
    return start;
  }
  void Free(uint8_t* memory) override {
    if (!memory) return;
    FinishAllStreams();
    size_t bytes = 0;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const auto piece = pieces_.find(memory);
      TW_CHECK(piece != pieces_.end());  // what is freed was allocated
      bytes = piece->second;
      pieces_.erase(piece);
    }
    const bool whole = std::all_of(memory + bytes, memory + bytes + kGuard,
                                   [](uint8_t byte) { return byte == kGuardByte; });
    EXPECT_TRUE(whole) << "a kernel wrote behind its memory of " << bytes << " bytes";
    Succeeds(cudaFree(memory));
  }

 private:
  const int device_;
  std::mutex mutex_;
  std::map<uint8_t*, size_t> pieces_;
};

int Existing(int number) {
  int count = 0;
  Succeeds(cudaGetDeviceCount(&count));
  return number % std::max(count, 1);
}

}  // namespace

HostMayLook::HostMayLook() { FinishAllStreams(); }

TestDevice::TestDevice(int number)
    : number_(Existing(number)), memory_(std::make_unique<ManagedMemory>(number_)) {
  int concurrent = 0;
  Succeeds(cudaDeviceGetAttribute(&concurrent, cudaDevAttrConcurrentManagedAccess, number_));
  TW_CHECK(concurrent);  // else the host may touch nothing while another thread's kernels run
  used |= uint64_t{1} << number_;
}

// Several of them have to be there at once.
size_t TestDevice::LargeNumel() {
  size_t available = 0, total = 0;
  Succeeds(cudaMemGetInfo(&available, &total));
  return (available >= size_t{36} << 30 ? size_t{1} << 31 : size_t{1} << 22) + 4133;
}

// LibTorch's tensors lie in managed memory (managed_tensors.cc).
SeenByBoth::SeenByBoth(const void* memory, size_t) {
  cudaPointerAttributes attributes{};
  Succeeds(cudaPointerGetAttributes(&attributes, memory));
  EXPECT_EQ(attributes.type, cudaMemoryTypeManaged);
}

Counted LaunchesSoFar() { return {}; }

}  // namespace tw
