#include "core/engine/norms.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/api/convert.h"
#include "core/kernels/device_kernels.h"
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

double Norm(std::span<const TensorView> views) {
  double sum = 0;
  if (auto* device = kernels::OnDevice()) {
    std::vector<double> squares(views.size());
    device->SumsOfSquares(views, squares);
    sum = std::accumulate(squares.begin(), squares.end(), 0.0);
  } else {
    for (const TensorView& view : views) sum += SumOfSquares(view);
  }
  return std::sqrt(sum);
}

}  // namespace

double GradientNorm(std::span<const ParameterView> parameters) {
  return Norm(GradientsOf(parameters));
}
double ResidualNorm(const StateBag& state) { return Norm(ErrorMemoriesOf(state)); }

std::vector<TensorView> GradientsOf(std::span<const ParameterView> parameters) {
  std::vector<TensorView> views;
  for (const ParameterView& p : parameters) views.push_back(p.grad);
  return views;
}
std::vector<TensorView> ErrorMemoriesOf(const StateBag& state) {
  std::vector<TensorView> views;
  state.ForEach([&](const std::string& name, const StateSlot& slot) {
    if (name.starts_with("feedback/") && name.ends_with("/e")) views.push_back(slot.view);
  });
  return views;
}

bool GradientsFinite(std::span<const ParameterView> parameters) {
  return std::all_of(parameters.begin(), parameters.end(),
                     [](const ParameterView& p) { return AllFinite(p.grad); });
}

}  // namespace tw
