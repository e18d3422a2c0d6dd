#include "core/engine/norms.h"

#include <algorithm>
#include <cmath>

#include "core/api/convert.h"
#include "core/kernels/reduce.h"

namespace tw {
namespace {

template <class T, class ToDouble>
double PlainSumOfSquares(TensorView view, ToDouble to_double) {
  double sum = 0;
  const T* p = static_cast<const T*>(view.data);
  for (int64_t i = 0; i < view.numel; ++i) {
    const double x = to_double(p[i]);
    sum += x * x;
  }
  return sum;
}

double SumOfSquares(TensorView view) {
  switch (view.dtype) {
    case DType::kF32:
      return kernels::SumOfSquares(view.f32());
    case DType::kF64:
      return PlainSumOfSquares<double>(view, [](double x) { return x; });
    case DType::kF16:
      return PlainSumOfSquares<uint16_t>(view, HalfToFloat);
    default:
      return PlainSumOfSquares<uint16_t>(view, Bf16ToFloat);
  }
}

}  // namespace

double GradientNorm(std::span<const ParameterView> parameters) {
  double squares = 0;
  for (const ParameterView& p : parameters) squares += SumOfSquares(p.grad);
  return std::sqrt(squares);
}

double ResidualNorm(const StateBag& state) {
  double squares = 0;
  state.ForEach([&](const std::string& name, const StateSlot& slot) {
    if (name.starts_with("feedback/") && name.ends_with("/e")) squares += SumOfSquares(slot.view);
  });
  return std::sqrt(squares);
}

bool GradientsFinite(std::span<const ParameterView> parameters) {
  return std::all_of(parameters.begin(), parameters.end(),
                     [](const ParameterView& p) { return AllFinite(p.grad); });
}

}  // namespace tw
