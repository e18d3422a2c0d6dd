#pragma once
// bfloat16 for the matrix products of a forward pass.

#include <ATen/core/Tensor.h>
namespace tw {

// While it lives, matrix products on devices of this type (the CPU, CUDA) run in bfloat16 if
// `bf16` (autocast); nothing changes otherwise. Parameters, gradients and the loss stay fp32.
// Backward needs none of it, except where it runs a forward pass again.
class PrecisionScope {
 public:
  PrecisionScope(bool bf16, at::DeviceType device);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  const bool bf16_;
  const at::DeviceType device_;
  bool enabled_before_ = false;
  at::ScalarType dtype_before_ = at::kFloat;
};

// True inside such a scope.
bool InBf16Scope(at::DeviceType device);

}  // namespace tw
