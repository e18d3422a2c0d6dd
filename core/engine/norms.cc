#include "core/engine/norms.h"

#include <algorithm>
#include <cmath>

#include "core/api/convert.h"
#include "core/kernels/reduce.h"

namespace tw {
namespace {

double PlainSumOfSquares(std::span<const double> values) {
  double sum = 0;
  for (const double x : values) sum += x * x;
  return sum;
}

// Of fp16 and bf16, widened tile by tile.
double SumOfSquaresInTiles(TensorView view) {
  constexpr int64_t kTile = 2048;
  alignas(64) float tile[kTile];
  double sum = 0;
  for (int64_t first = 0; first < view.numel; first += kTile) {
    const int64_t count = std::min(kTile, view.numel - first);
    const std::span<float> wide(tile, static_cast<size_t>(count));
    ConvertToFp32({static_cast<uint16_t*>(view.data) + first, view.dtype, count}, wide);
    sum += kernels::SumOfSquares(wide);
  }
  return sum;
}

double SumOfSquares(TensorView view) {
  switch (view.dtype) {
    case DType::kF32:
      return kernels::SumOfSquares(view.f32());
    case DType::kF64:
      return PlainSumOfSquares(
          {static_cast<const double*>(view.data), static_cast<size_t>(view.numel)});
    default:
      return SumOfSquaresInTiles(view);
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
