#pragma once
// Scalar conversions between fp32 and the two 16-bit types, all with rounding to nearest even.
// The vectorised loops of elementwise.cc give the same bits, and so do the kernels for GPUs.

#include <bit>
#include <cstdint>

#include "core/base/host_device.h"

namespace tw::kernels {

TW_HOST_DEVICE inline float Bf16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

TW_HOST_DEVICE inline uint16_t FloatToBf16(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);  // NaN
  return static_cast<uint16_t>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

TW_HOST_DEVICE inline float HalfToFloat(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t exponent = (bits >> 10) & 31u;
  const uint32_t mantissa = bits & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1.0p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

// Adding 0.5 to a magnitude below 2^-14 rounds it, by the processor's own rule, to a multiple of
// 2^-24, the unit of subnormal halves, and leaves that multiple in the low mantissa bits.
TW_HOST_DEVICE inline uint16_t FloatToHalf(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t magnitude = u & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // rounds to Inf
  if (magnitude < 0x38800000u) {
    const float rounded = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(rounded) - 0x3F000000u));
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

// bf16 with the low 16 bits rounded up with the probability they stand for, by the upper half of
// `random`. Inf stays as it is, NaN a NaN.
TW_HOST_DEVICE inline uint16_t FloatToBf16Random(float value, uint32_t random) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  if ((u & 0x7F800000u) == 0x7F800000u) {
    return static_cast<uint16_t>((u >> 16) | ((u & 0x007FFFFFu) ? 0x40u : 0u));
  }
  return static_cast<uint16_t>((u + (random >> 16)) >> 16);
}

// The largest finite half instead of an infinity.
TW_HOST_DEVICE inline uint16_t FloatToHalfSaturated(float value) {
  const uint16_t half = FloatToHalf(value);
  return (half & 0x7FFFu) == 0x7C00u ? static_cast<uint16_t>((half & 0x8000u) | 0x7BFFu) : half;
}
TW_HOST_DEVICE inline uint16_t FloatToBf16Saturated(float value) {
  const uint16_t bf16 = FloatToBf16(value);
  return (bf16 & 0x7FFFu) == 0x7F80u ? static_cast<uint16_t>((bf16 & 0x8000u) | 0x7F7Fu) : bf16;
}

}  // namespace tw::kernels
