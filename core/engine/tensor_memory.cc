#include "core/engine/tensor_memory.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <atomic>
#include <cstring>

namespace tw {
namespace {

// In front of every allocation, as wide as LibTorch's alignment: its size.
constexpr size_t kPrefixBytes = 64;

// Plain globals: tensors in other globals are freed after any destructor of ours could have run.
std::atomic<int64_t> live_bytes{0};
std::atomic<int64_t> peak_bytes{0};

void Freed(void* data) {
  if (!data) return;
  char* start = static_cast<char*>(data) - kPrefixBytes;
  int64_t bytes = 0;
  std::memcpy(&bytes, start, sizeof(bytes));
  live_bytes.fetch_sub(bytes, std::memory_order_relaxed);
  c10::free_cpu(start);
}

// The context of each DataPtr is the data pointer itself: some kernels (gelu) take raw memory from
// raw_allocate() and give it back to raw_deleter(), which has nothing else to find its way.
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, nullptr, &Freed, cpu};
    char* start = static_cast<char*>(c10::alloc_cpu(bytes + kPrefixBytes));
    const auto counted = static_cast<int64_t>(bytes);
    std::memcpy(start, &counted, sizeof(counted));
    const int64_t live = live_bytes.fetch_add(counted, std::memory_order_relaxed) + counted;
    int64_t peak = peak_bytes.load(std::memory_order_relaxed);
    while (live > peak &&
           !peak_bytes.compare_exchange_weak(peak, live, std::memory_order_relaxed)) {
    }
    char* data = start + kPrefixBytes;
    return {data, data, &Freed, cpu};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Freed; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

// Null where LibTorch has none, or none that counts; its library for such devices may be missing.
c10::DeviceAllocator* AllocatorOf(c10::Device device) {
  auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device.type()));
  return allocator && allocator->initialized() ? allocator : nullptr;
}

c10::DeviceIndex IndexOf(c10::Device device) { return device.has_index() ? device.index() : 0; }

c10::CachingAllocator::Stat OfDevice(c10::Device device) {
  c10::DeviceAllocator* allocator = AllocatorOf(device);
  if (!allocator) return {};
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return allocator->getDeviceStats(IndexOf(device)).allocated_bytes[kAll];
}

}  // namespace

void InstallTensorMemoryCounter() {
  // Never destroyed: LibTorch keeps the pointer until the process ends.
  static const bool installed = [] {
    c10::SetCPUAllocator(new CountingAllocator, /*priority=*/1);
    return true;
  }();
  (void)installed;
}

int64_t LiveTensorBytes(c10::Device device) {
  if (device.is_cpu()) return live_bytes.load(std::memory_order_relaxed);
  return OfDevice(device).current;
}
int64_t PeakTensorBytes(c10::Device device) {
  if (device.is_cpu()) return peak_bytes.load(std::memory_order_relaxed);
  return OfDevice(device).peak;
}
void ResetPeakTensorBytes(c10::Device device) {
  if (device.is_cpu()) {
    peak_bytes.store(LiveTensorBytes(), std::memory_order_relaxed);
  } else if (c10::DeviceAllocator* allocator = AllocatorOf(device)) {
    allocator->resetPeakStats(IndexOf(device));
  }
}
void GiveBackUnusedTensorMemory(c10::Device device) {
  if (device.is_cpu()) return;
  if (c10::DeviceAllocator* allocator = AllocatorOf(device)) allocator->emptyCache();
}

}  // namespace tw
