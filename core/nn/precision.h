#pragma once
// bfloat16 for the matrix products of a forward pass.

#include <ATen/core/Tensor.h>
namespace tw {

// While it lives, matrix products run in bfloat16 if `bf16` (autocast); nothing changes otherwise.
// Parameters, gradients and the loss stay fp32. Backward needs none of it, except where it runs a
// forward pass again.
class PrecisionScope {
 public:
  explicit PrecisionScope(bool bf16);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  bool bf16_;
  bool enabled_before_ = false;
  at::ScalarType dtype_before_ = at::kFloat;
};

// True inside such a scope.
bool InBf16Scope();

}  // namespace tw
