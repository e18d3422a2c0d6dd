// What low-rank codecs begin with: directions that are drawn or scaled to length one.
#include <cmath>

#include "core/kernels/device_kernels.h"
#include "core/kernels/lowrank.h"
#include "core/kernels/random.h"
#include "core/kernels/reduce.h"

namespace tw::kernels {
namespace {

// False, with nothing written, when `from` is zero.
bool ScaleToLengthOne(std::span<const float> from, float* to) {
  const double length = std::sqrt(SumOfSquares(from));
  if (!(length > 0.0)) return false;
  for (size_t j = 0; j < from.size(); ++j) to[j] = static_cast<float>(from[j] / length);
  return true;
}

void Draw(std::span<float> x, uint64_t key, uint64_t first) {
  for (size_t i = 0; i < x.size(); ++i) x[i] = CentredUniform(ElementBits(key, first + i));
}

}  // namespace

void UnitRows(const float* from, int64_t rows, int64_t cols, uint64_t key, float* to) {
  if (DeviceKernels* device = OnDevice()) return device->UnitRows(from, rows, cols, key, to);
  const size_t n = static_cast<size_t>(cols);
  for (int64_t at = 0; at < rows * cols; at += cols) {
    if (from && ScaleToLengthOne({from + at, n}, to + at)) continue;
    Draw({to + at, n}, key, static_cast<uint64_t>(at));
    ScaleToLengthOne({to + at, n}, to + at);
  }
}

void DrawUniform(std::span<float> x, uint64_t key, uint64_t first) {
  if (DeviceKernels* device = OnDevice()) return device->DrawUniform(x, key, first);
  Draw(x, key, first);
}

void TransposeScaled(const float* from, int64_t rows, int64_t cols, float factor, float* to) {
  if (DeviceKernels* device = OnDevice()) {
    return device->TransposeScaled(from, rows, cols, factor, to);
  }
  for (int64_t j = 0; j < cols; ++j) {
    for (int64_t i = 0; i < rows; ++i) to[j * rows + i] = factor * from[i * cols + j];
  }
}

}  // namespace tw::kernels
