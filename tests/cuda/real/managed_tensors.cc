// LibTorch's tensors of the host in managed memory, so that kernels on a GPU work on them: linked
// into a program, from before its first test.

#include <c10/core/CPUAllocator.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <vector>

namespace tw {
namespace {

// What is given back is kept for the next one of its size: cudaFree waits for the device.
class ManagedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, nullptr, &GiveBack, cpu};
    void* const data = Take(std::bit_ceil(bytes));
    return {data, data, &GiveBack, cpu};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &GiveBack; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  struct Pool {
    std::mutex mutex;
    std::map<size_t, std::vector<void*>> idle;
    std::map<void*, size_t> sizes;
  };
  // Never destroyed: tensors may be globals.
  static Pool& ThePool() {
    static auto* pool = new Pool;
    return *pool;
  }
  static void* Take(size_t bytes) {
    Pool& pool = ThePool();
    const std::lock_guard<std::mutex> lock(pool.mutex);
    std::vector<void*>& idle = pool.idle[bytes];
    if (!idle.empty()) {
      void* const data = idle.back();
      idle.pop_back();
      return data;
    }
    void* data = nullptr;
    if (cudaMallocManaged(&data, bytes) != cudaSuccess) throw std::bad_alloc();
    pool.sizes[data] = bytes;
    return data;
  }
  static void GiveBack(void* data) {
    if (!data) return;
    Pool& pool = ThePool();
    const std::lock_guard<std::mutex> lock(pool.mutex);
    pool.idle[pool.sizes.at(data)].push_back(data);
  }
};

class InManagedMemory : public testing::Environment {
 public:
  void SetUp() override { c10::SetCPUAllocator(new ManagedAllocator); }
};
const testing::Environment* const in_managed_memory =
    testing::AddGlobalTestEnvironment(new InManagedMemory);

}  // namespace
}  // namespace tw
