#include "core/nn/precision.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>

namespace tw {

std::optional<Precision> PrecisionNamed(std::string_view name) {
  if (name == "fp32") return Precision::kFp32;
  if (name == "bf16") return Precision::kBf16;
  if (name == "bf16_pure") return Precision::kBf16Pure;
  return std::nullopt;
}

PrecisionScope::PrecisionScope(bool bf16, at::DeviceType device) : bf16_(bf16), device_(device) {
  if (!bf16_) return;
  enabled_before_ = at::autocast::is_autocast_enabled(device_);
  dtype_before_ = at::autocast::get_autocast_dtype(device_);
  at::autocast::set_autocast_enabled(device_, true);
  at::autocast::set_autocast_dtype(device_, at::kBFloat16);
  at::autocast::increment_nesting();
}

PrecisionScope::~PrecisionScope() {
  if (!bf16_) return;
  // The cache holds bf16 copies of the weights, which the optimizer is about to change.
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(device_, enabled_before_);
  at::autocast::set_autocast_dtype(device_, dtype_before_);
}

bool InBf16Scope(at::DeviceType device) {
  return at::autocast::is_autocast_enabled(device) &&
         at::autocast::get_autocast_dtype(device) == at::kBFloat16;
}

}  // namespace tw
