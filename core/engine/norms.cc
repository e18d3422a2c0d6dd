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

// Of tensors on a device; waits for it.
double SumOnDevice(kernels::DeviceKernels& device, const std::vector<TensorView>& views) {
  std::vector<double> squares(views.size());
  device.SumsOfSquares(views, squares);
  return std::accumulate(squares.begin(), squares.end(), 0.0);
}

}  // namespace

double GradientNorm(std::span<const ParameterView> parameters) {
  if (auto* device = kernels::OnDevice()) {
    std::vector<TensorView> views;
    for (const ParameterView& p : parameters) views.push_back(p.grad);
    return std::sqrt(SumOnDevice(*device, views));
  }
  double squares = 0;
  for (const ParameterView& p : parameters) squares += SumOfSquares(p.grad);
  return std::sqrt(squares);
}

double ResidualNorm(const StateBag& state) {
  double squares = 0;
  std::vector<TensorView> on_device;
  state.ForEach([&](const std::string& name, const StateSlot& slot) {
    if (!name.starts_with("feedback/") || !name.ends_with("/e")) return;
    if (slot.on_device) {
      on_device.push_back(slot.view);
    } else {
      squares += SumOfSquares(slot.view);
    }
  });
  if (!on_device.empty()) squares += SumOnDevice(*kernels::OnDevice(), on_device);
  return std::sqrt(squares);
}

bool GradientsFinite(std::span<const ParameterView> parameters) {
  return std::all_of(parameters.begin(), parameters.end(),
                     [](const ParameterView& p) { return AllFinite(p.grad); });
}

}  // namespace tw
