#pragma once
// Loops over a parameter's numbers whatever its dtype, for strategies: compute and state in fp32,
// fp64 for fp64 parameters (MomentDType). A body is a generic lambda over the access:
//   WithNumbers(spec.dtype, [&](auto numbers) {
//     using N = decltype(numbers);
//     typename N::State* c = ...;                      // of slots: float or double
//     N::Put(grad, i, N::Get(grad, i) - c[i]);         // of values and gradients
//   });

#include "core/base/status.h"
#include "optim/elementwise.h"

namespace tw {

template <class T>
struct PlainNumbers {
  using State = T;
  static T Get(TensorView v, int64_t i) { return static_cast<const T*>(v.data)[i]; }
  static void Put(TensorView v, int64_t i, T x) { static_cast<T*>(v.data)[i] = x; }
};

template <bool kBf16>
struct HalfNumbers {
  using State = float;
  static float Get(TensorView v, int64_t i) {
    const uint16_t bits = static_cast<const uint16_t*>(v.data)[i];
    return kBf16 ? Bf16ToFloat(bits) : HalfToFloat(bits);
  }
  static void Put(TensorView v, int64_t i, float x) {
    static_cast<uint16_t*>(v.data)[i] = kBf16 ? FloatToBf16(x) : FloatToHalf(x);
  }
};

template <class F>
void WithNumbers(DType dtype, F&& body) {
  switch (dtype) {
    case DType::kF32:
      return body(PlainNumbers<float>());
    case DType::kF64:
      return body(PlainNumbers<double>());
    case DType::kF16:
      return body(HalfNumbers<false>());
    case DType::kBF16:
      return body(HalfNumbers<true>());
    default:
      TW_CHECK(false && "a parameter is a floating point tensor");
  }
}

}  // namespace tw
