#pragma once
// A device for tests of what works on one: the queue of core/kernels/device_queue.h and its memory
// over the emulated runtime. The host cannot touch that memory (arena.h), the queue's kernels are
// the very .cu sources, and work is done as late as the runtime may (runtime.h).
//
//   EmulatedDevice device;
//   auto queue = device.NewQueue();
//   DeviceBuffer<float> x(device, values);
//   { DeviceScope scope(queue.get()); kernels::Scale(x.span(), 2); }
//   EXPECT_EQ(x.Values(), ...);
//
// Link tw_emulated_device and tw_emulated_kernels. Devices are numbers below kDevices, all in one
// memory; queues of one device with QueueStream::kDefault share its default stream. Thread safe.

#include <cstring>
#include <memory>
#include <vector>

#include "core/base/device.h"
#include "core/base/status.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/device_queue.h"
#include "tests/cuda/emulation/arena.h"
#include "tests/cuda/emulation/runtime.h"

namespace tw {

// What streams were given is done; until this ends, the host may read and write device memory. For
// the eyes of tests, and for what stands in for LibTorch or for communicators of devices. To open
// and close costs a system call over all pages in use: one for many looks.
class HostMayLook {
 public:
  HostMayLook() { emulation::FinishAllStreams(); }

 private:
  emulation::ArenaOpen open_;
};

class EmulatedDevice {
 public:
  explicit EmulatedDevice(int number = 0) : number_(number) {
    auto memory = kernels::MakeDeviceMemory(number);
    TW_CHECK_OK(memory);
    memory_ = std::move(*memory);
  }
  DeviceMemory& memory() { return *memory_; }
  std::unique_ptr<kernels::DeviceKernels> NewQueue(
      kernels::QueueStream stream = kernels::QueueStream::kOwn) {
    auto queue = kernels::MakeDeviceQueue({number_, stream, memory_.get()});
    TW_CHECK_OK(queue);
    return std::move(*queue);
  }

 private:
  const int number_;
  emulation::LaunchesToStreams to_streams_;
  std::unique_ptr<DeviceMemory> memory_;
};

// `offset` bytes behind an aligned address.
template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer(EmulatedDevice& device, const std::vector<T>& values, size_t offset = 0)
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
