#include "core/nn/to_device.h"

namespace tw {

at::Tensor ToDevice(const at::Tensor& tensor, at::Device device) {
  if (tensor.device() == device) return tensor;
  const at::Tensor from = tensor.contiguous();
  // From pageable memory CUDA copies when the device has come so far. LibTorch keeps pinned pieces
  // for the next time, and for as long as the copy takes.
  return (device.is_cuda() ? from.pin_memory() : from).to(device, /*non_blocking=*/true);
}

}  // namespace tw
