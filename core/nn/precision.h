#pragma once
// bfloat16 for the matrix products of a forward pass, or for all of its activations.

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

namespace tw {

// train.precision.
enum class Precision {
  kFp32,
  kBf16,      // autocast: what goes through a product is bf16, the stream between blocks fp32
  kBf16Pure,  // no autocast: weights of linear layers and all activations are bf16
};
// Of "fp32", "bf16", "bf16_pure"; nothing otherwise.
std::optional<Precision> PrecisionNamed(std::string_view name);

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
