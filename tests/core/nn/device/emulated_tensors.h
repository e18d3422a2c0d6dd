#pragma once
// LibTorch's tensors on the emulated device (tests/cuda/emulation/emulated_device.h), for tests of
// what runs on GPUs with models. To LibTorch they are on kMTIA, for which its CPU build has neither
// memory nor operators, but everything else: autocast, streams, a thread of its own to go backward.
//
// - Memory is the device's: a host that touches it crashes the test. The kernels of the tensors'
//   queue run late; whatever LibTorch does comes behind them.
// - Operators work on copies. Like CUDA's they throw where a tensor is on the host, but for single
//   numbers.
// - No operator but those that copy waits for the device: a test may count.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/base/device.h"

namespace tw {

inline const at::Device kEmulatedDevice(at::kMTIA, 0);

// The device's tensors are handed to kernels as long as one of these lives. Tensors may outlive it.
class EmulatedTensors {
 public:
  EmulatedTensors();
  ~EmulatedTensors();
  EmulatedTensors(const EmulatedTensors&) = delete;
  EmulatedTensors& operator=(const EmulatedTensors&) = delete;

  // The one on LibTorch's stream.
  DeviceQueue* queue() const { return queue_; }
  // How often numbers went from the device to the host outside of operators.
  static int64_t copies_to_host();
  // How often its allocator was asked to give back what no tensor uses.
  static int64_t times_emptied();

 private:
  DeviceQueue* queue_;
};

}  // namespace tw
