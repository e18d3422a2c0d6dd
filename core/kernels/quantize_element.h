#pragma once
// One element, one block of quantize.h: the arithmetic that the reference, odd ends of the vector
// code and the kernels for GPUs share.

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/base/host_device.h"
#include "core/kernels/quantize.h"

namespace tw::kernels::quantize {

TW_HOST_DEVICE inline float Clamp(float x, float limit) {
  return std::min(std::max(x, -limit), limit);
}

// Rounds to nearest, ties to even, for |x| < 2^22: the bits that fall off 1.5 * 2^23.
TW_HOST_DEVICE inline float RoundEven(float x) {
  constexpr float kMagic = 12582912.0f;
  const float shifted = x + kMagic;
  return shifted - kMagic;
}

TW_HOST_DEVICE inline float ToFloat(double x) {
  constexpr double kMax = std::numeric_limits<float>::max();
  return static_cast<float>(std::min(std::max(x, -kMax), kMax));
}

TW_HOST_DEVICE inline int64_t CodeBytes(const QuantizeSpec& spec, int64_t numel) {
  return spec.packing == Packing::kTrits ? (numel + 4) / 5 : (numel * spec.bits + 7) / 8;
}

TW_HOST_DEVICE inline BlockScale ScaleOfBlock(float scale, int levels) {
  constexpr float kSmallestFast = 0x1p-100f, kLargestFast = 0x1p120f;
  BlockScale s;
  s.scale = scale;
  s.edge = !(scale >= kSmallestFast && scale <= kLargestFast);
  if (!s.edge) {
    s.inverse = static_cast<float>(levels) / scale;
    s.step = scale / static_cast<float>(levels);
  }
  return s;
}

// From the sum of magnitudes (kMeanAbs) or of squares (kL2Norm) of `numel` > 0 elements.
TW_HOST_DEVICE inline float ScaleFromSum(double sum, int64_t numel, ScaleRule rule) {
  if (rule == ScaleRule::kMeanAbs) return ToFloat(sum / static_cast<double>(numel));
  const double norm = std::sqrt(sum);
  // Never below any |x|, or its level would exceed the last one.
  const float rounded = ToFloat(norm);
  constexpr float kMax = std::numeric_limits<float>::max();
  const bool below = double{rounded} < norm && rounded < kMax;
  return below ? std::bit_cast<float>(std::bit_cast<uint32_t>(rounded) + 1) : rounded;
}

// `noise` is that of stochastic rounding, else 0.
TW_HOST_DEVICE inline uint8_t CodeOf(float x, float noise, const QuantizeSpec& spec,
                                     const BlockScale& s) {
  const float half = static_cast<float>(1 << (spec.bits - 1));
  if (spec.bits == 1) {
    if (s.scale == 0.0f) return 0;
    if (!spec.stochastic) return x >= 0.0f ? 1 : 0;
    const double place = static_cast<double>(x) / s.scale * 0.5 + 0.5 + noise;
    return place > 0.5 ? 1 : 0;
  }
  if (s.scale == 0.0f) return static_cast<uint8_t>(half);
  float place = s.edge ? ToFloat(double{x} * spec.levels / s.scale) : x * s.inverse;
  if (spec.stochastic || s.edge) place = Clamp(place + noise, static_cast<float>(spec.levels));
  return static_cast<uint8_t>(RoundEven(place) + half);
}

TW_HOST_DEVICE inline float ValueOf(uint8_t code, const QuantizeSpec& spec, const BlockScale& s) {
  if (s.scale == 0.0f) return 0.0f;
  if (spec.bits == 1) return code ? s.scale : -s.scale;
  const int q = static_cast<int>(code) - (1 << (spec.bits - 1));
  if (!s.edge) return static_cast<float>(q) * s.step;
  return ToFloat(static_cast<double>(q) * s.scale / spec.levels);
}

}  // namespace tw::kernels::quantize
