#pragma once
// Kernels (core/kernels) on LibTorch's tensors. LibTorch works on a stream of its own, and goes
// back through a graph on threads of its own, on which no DeviceScope is: whoever calls kernels on
// tensors says so, and they take their turn among LibTorch's own work.
//
//   {
//     const TensorScope scope(x);
//     kernels::QuantizeInt8(x.const_data_ptr<float>(), rows, cols, codes, scales);
//   }

#include <ATen/core/Tensor.h>

#include <mutex>

#include "core/base/device.h"

namespace tw {

// The queue on the stream that LibTorch works on, for tensors that are not the host's; null: none.
// Set before there are such tensors. Nobody may be within a TensorScope.
void SetTensorQueue(DeviceQueue* queue);

// Where kernels on this tensor go; null: they are the host's. REQUIRES: a queue was set, if the
// tensor is not on the host. Thread safe.
DeviceQueue* QueueOf(const at::Tensor& tensor);

// Until it ends, kernels that this thread calls go where the tensor is. Threads take turns at the
// queue. May be opened within another one.
class TensorScope {
 public:
  explicit TensorScope(const at::Tensor& tensor);

 private:
  std::unique_lock<std::recursive_mutex> turn_;
  DeviceScope scope_;
};

}  // namespace tw
