#pragma once
// The path of parameters that are not fp32: element by element, in fp64 for fp64 parameters and in
// fp32 for half-precision ones, whose moments are fp32.

#include <span>

#include "core/api/convert.h"
#include "core/api/optimizer.h"
#include "core/base/status.h"

namespace tw {

// dtype of a parameter's moments.
inline DType MomentDType(DType parameter) {
  return parameter == DType::kF64 ? DType::kF64 : DType::kF32;
}

// "optimizer/<parameter>/": where a parameter's moments live.
inline StateScope MomentScope(const UpdateContext& context, const TensorSpec& spec) {
  return StateScope(context.state, "optimizer/" + spec.name + "/", StatePlace::kTensors);
}

template <class T>
inline T* Elements(TensorView view) {
  return static_cast<T*>(view.data);
}

// update(float& value, float grad, int64_t i) for every element of a half-precision parameter; the
// new value is rounded to nearest even.
template <class F>
void ForHalfElements(const ParameterView& parameter, F&& update) {
  auto* value = Elements<uint16_t>(parameter.value);
  const auto* grad = Elements<uint16_t>(parameter.grad);
  const bool bf16 = parameter.value.dtype == DType::kBF16;
  TW_CHECK(bf16 || parameter.value.dtype == DType::kF16);
  for (int64_t i = 0; i < parameter.value.numel; ++i) {
    float p = bf16 ? Bf16ToFloat(value[i]) : HalfToFloat(value[i]);
    update(p, bf16 ? Bf16ToFloat(grad[i]) : HalfToFloat(grad[i]), i);
    value[i] = bf16 ? FloatToBf16(p) : FloatToHalf(p);
  }
}

// What every optimizer requires of what it is handed.
inline void CheckParameter(const ParameterView& parameter) {
  TW_CHECK(parameter.spec != nullptr);
  TW_CHECK_EQ(parameter.value.numel, parameter.spec->numel());
  TW_CHECK_EQ(parameter.grad.numel, parameter.value.numel);
  TW_CHECK_EQ(static_cast<int>(parameter.grad.dtype), static_cast<int>(parameter.value.dtype));
}

}  // namespace tw
