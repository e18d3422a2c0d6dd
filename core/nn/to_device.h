#pragma once
// From the host's memory to a device's.

#include <ATen/core/Tensor.h>

namespace tw {

// `tensor` on `device`, as it is if it is there; contiguous otherwise. From the host it is on its
// way when the call returns, and what LibTorch is told to do with it comes behind: nothing waits.
at::Tensor ToDevice(const at::Tensor& tensor, at::Device device);

}  // namespace tw
