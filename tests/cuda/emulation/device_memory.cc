#include "tests/cuda/device_memory.h"

#include <cstdlib>
#include <set>

#include "tests/cuda/emulation/cuda_on_cpu.h"

namespace tw {
namespace {

class HostMemory : public KernelMemory {
 public:
  ~HostMemory() override {
    for (void* memory : held_) std::free(memory);
  }
  void* Allocate(size_t bytes) override {
    void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    held_.insert(memory);
    return memory;
  }
  void Free(void* memory) override {
    if (held_.erase(memory)) std::free(memory);
  }
  void CopyIn(void* device, const void* host, size_t bytes) override {
    if (bytes) std::memcpy(device, host, bytes);
  }
  void CopyOut(void* host, const void* device, size_t bytes) override {
    if (bytes) std::memcpy(host, device, bytes);
  }
  kernels::device::Stream stream() override { return nullptr; }
  int64_t launches() override { return emulation::LaunchCount(); }
  void SetSeed(uint64_t seed) override { emulation::SetSeed(seed); }

 private:
  std::set<void*> held_;
};

}  // namespace

std::unique_ptr<KernelMemory> KernelMemory::Open(std::string*) {
  return std::make_unique<HostMemory>();
}

}  // namespace tw
