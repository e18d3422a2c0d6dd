#pragma once
// Where a bench's numbers lie, and what time work on them takes: the key `device` of a bench.

#include <c10/core/Device.h>

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "launch/device_module.h"

namespace tw {

// Its Field: .Text("device", ..., kBenchDevices, kBenchDeviceHelp)
inline const std::vector<std::string> kBenchDevices = {"cpu", "cuda"};
inline constexpr char kBenchDeviceHelp[] = "cuda: on this machine's first GPU";

class BenchDevice {
 public:
  // cpu, or cuda for the first of `devices` (null: of this machine). With `tensors` LibTorch's
  // tensors may lie there too. DataError in one line where there is no GPU to use. One at a time;
  // main thread.
  static StatusOr<std::unique_ptr<BenchDevice>> Open(const std::string& word,
                                                     const DeviceModule* devices,
                                                     bool tensors = false);
  ~BenchDevice();
  BenchDevice(const BenchDevice&) = delete;
  BenchDevice& operator=(const BenchDevice&) = delete;

  const std::string& name() const { return name_; }  // "NVIDIA H200"; empty: the host
  bool on_device() const { return !name_.empty(); }
  DeviceMemory* memory() const { return opened_.memory.get(); }  // null: the host's
  DeviceQueue* queue() const { return opened_.training.get(); }  // LibTorch's; null: none
  at::Device tensors() const { return tensors_; }

  // What was put on the device is done.
  Status Wait() const;
  // Milliseconds of one of `times` runs of `work`, begun on an idle device and over when it is idle
  // again: what it takes to put work there and to wait is in it, once in all `times`.
  StatusOr<double> Time(int64_t times, const std::function<Status()>& work) const;

 private:
  BenchDevice() = default;

  std::string name_;
  OpenedDevice opened_;
  at::Device tensors_ = at::Device(at::kCPU);
  bool for_tensors_ = false;
};

// Bell-shaped numbers, sums of four uniform ones, where this thread works.
void FillBellShaped(std::span<float> values, float scale, uint64_t seed);

}  // namespace tw
