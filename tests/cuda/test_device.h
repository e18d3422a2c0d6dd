#pragma once
// A device for tests of what works on one: memory, queues of core/kernels/device_queue.h, and eyes
// for the test. Two implementations, of which a program links one: emulation/ (no GPU; the host
// cannot touch that memory, and work is done as late as it may), and real/ (a GPU and CUDA's
// managed memory). What only the emulation can show is in emulation/emulated_device.h.
//
//   TestDevice device;
//   auto queue = device.NewQueue();
//   DeviceBuffer<float> x(device, values);
//   { DeviceScope scope(queue.get()); kernels::Scale(x.span(), 2); }
//   EXPECT_EQ(x.Values(), ...);

#include <cstring>
#include <memory>
#include <ostream>
#include <span>
#include <utility>
#include <vector>

#include "core/base/device.h"
#include "core/base/status.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/device_queue.h"

namespace tw {

// What streams were given is done; until this ends, the host may read and write device memory. For
// the eyes of tests, and for what stands in for LibTorch or for communicators of devices. To open
// and close costs a system call over all pages in use: one for many looks.
class HostMayLook {
 public:
  HostMayLook();

 private:
  std::shared_ptr<void> open_;
};

// Where there are fewer devices than `number`, another one stands in. All memory ends with a guard,
// which is looked at when it is freed. Queues of one device with QueueStream::kDefault share its
// default stream. Thread safe.
class TestDevice {
 public:
  explicit TestDevice(int number = 0);
  DeviceMemory& memory() { return *memory_; }
  std::unique_ptr<kernels::DeviceKernels> NewQueue(
      kernels::QueueStream stream = kernels::QueueStream::kOwn) {
    auto queue = kernels::MakeDeviceQueue({number_, stream, memory_.get()});
    TW_CHECK_OK(queue);
    return std::move(*queue);
  }
  // Elements of a tensor that is large here: on a GPU more than 2^31.
  static size_t LargeNumel();

 private:
  int number_;
  std::shared_ptr<void> to_streams_;
  std::unique_ptr<DeviceMemory> memory_;
};

// Memory of a LibTorch tensor of the host, which kernels read and write until this ends.
class SeenByBoth {
 public:
  SeenByBoth(const void* memory, size_t bytes);

 private:
  std::shared_ptr<void> seen_;
};

// How often something happened. On a GPU nobody counts: there every expectation is met.
class Counted {
 public:
  Counted() = default;
  explicit Counted(int64_t count) : count_(count) {}
  friend Counted operator-(Counted a, Counted b) {
    return a.known() ? Counted(a.count_ - b.count_) : Counted();
  }
  friend bool operator==(Counted a, int64_t b) { return !a.known() || a.count_ == b; }
  friend bool operator>(Counted a, int64_t b) { return !a.known() || a.count_ > b; }
  friend bool operator==(Counted a, Counted b) { return a == b.count_; }
  friend void PrintTo(Counted a, std::ostream* out) { *out << a.count_; }

 private:
  static constexpr int64_t kNobodyCounts = -1;
  bool known() const { return count_ != kNobodyCounts; }
  int64_t count_ = kNobodyCounts;
};
Counted LaunchesSoFar();  // of kernels
template <class Work>
Counted LaunchesOf(Work work) {
  const Counted before = LaunchesSoFar();
  work();
  return LaunchesSoFar() - before;
}

// `offset` bytes behind an aligned address.
template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer(TestDevice& device, const std::vector<T>& values, size_t offset = 0)
      : memory_(device.memory()), count_(values.size()) {
    const HostMayLook look;
    start_ = memory_.Allocate(count_ * sizeof(T) + offset);
    data_ = reinterpret_cast<T*>(start_ + offset);
    if (count_ > 0) std::memcpy(start_ + offset, values.data(), count_ * sizeof(T));
  }
  ~DeviceBuffer() {
    if (start_) memory_.Free(start_);
  }
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : memory_(other.memory_),
        start_(std::exchange(other.start_, nullptr)),
        data_(other.data_),
        count_(other.count_) {}
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  T* data() const { return data_; }
  size_t size() const { return count_; }
  std::span<T> span() const { return {data_, count_}; }
  std::vector<T> Values() const {
    const HostMayLook look;
    std::vector<T> out(count_);
    if (count_ > 0) {
      std::memcpy(out.data(), reinterpret_cast<const uint8_t*>(data_), count_ * sizeof(T));
    }
    return out;
  }

 private:
  DeviceMemory& memory_;
  uint8_t* start_ = nullptr;
  T* data_ = nullptr;
  const size_t count_;
};

}  // namespace tw
