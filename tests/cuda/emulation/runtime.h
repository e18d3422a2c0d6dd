#pragma once
// The CUDA runtime that core/kernels/device_queue calls, on the CPU. What streams are given is done
// as late as possible: when somebody waits for it, a piece at a time when an event is looked at, in
// another stream's order only where an event says so. Who counts on more than that, or reuses
// memory of the host too early, gets wrong numbers here too. Thread safe.
//
// Ends the program with a word on what is wrong: a copy whose sides are not where its kind says, or
// not in one piece of memory; an address of the host within what is copied to the device.

#include <cstddef>
#include <cstdint>

namespace tw::emulation {

inline constexpr int kDevices = 8;

struct RuntimeCounts {
  int64_t allocations = 0;  // of device memory, pinned memory, events and streams
  int64_t frees = 0;        // of device memory
  int64_t copies = 0;       // between host and device
  int64_t waits = 0;        // for work that was not done yet
};
RuntimeCounts CountsOfRuntime();

// Waits for all streams of all devices.
void FinishAllStreams();
// Launches go to the runtime's streams while there is one of these.
class LaunchesToStreams {
 public:
  LaunchesToStreams();
  ~LaunchesToStreams();
  LaunchesToStreams(const LaunchesToStreams&) = delete;
  LaunchesToStreams& operator=(const LaunchesToStreams&) = delete;
};
// Memory of the host that the device sees too, in the place of what LibTorch would have there.
// Until the object ends.
class SeenByBoth {
 public:
  SeenByBoth(const void* memory, size_t bytes);
  ~SeenByBoth();
  SeenByBoth(const SeenByBoth&) = delete;
  SeenByBoth& operator=(const SeenByBoth&) = delete;

 private:
  const uint8_t* const memory_;
};
// So many allocations of device memory find none left.
void FailAllocations(int count);
// From now on copies are errors of the runtime.
void FailCopies(bool fail);

}  // namespace tw::emulation
