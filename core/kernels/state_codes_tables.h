#pragma once
// The codebooks of state_codes.h as constants, for kernels that compile once per SIMD target.

#include <algorithm>
#include <array>
#include <bit>

#include "core/kernels/state_codes.h"

namespace tw::kernels {

inline constexpr std::array<float, 16> kDeSigned4 = {
    -0.8875f, -0.6625f, -0.4375f, -0.2125f, -0.0775f, -0.0325f, -0.0055f, 0.0f,
    0.0055f,  0.0325f,  0.0775f,  0.2125f,  0.4375f,  0.6625f,  0.8875f,  1.0f};
inline constexpr std::array<float, 16> kDeUnsigned4 = {
    0.0f,     0.00325f, 0.00775f, 0.02125f, 0.04375f, 0.06625f, 0.08875f, 0.15625f,
    0.26875f, 0.38125f, 0.49375f, 0.60625f, 0.71875f, 0.83125f, 0.94375f, 1.0f};
inline constexpr std::array<float, 16> kDeNoZero4 = {
    0.00325f, 0.00325f, 0.00775f, 0.02125f, 0.04375f, 0.06625f, 0.08875f, 0.15625f,
    0.26875f, 0.38125f, 0.49375f, 0.60625f, 0.71875f, 0.83125f, 0.94375f, 1.0f};
inline constexpr std::array<float, 16> kLinear4 = {
    0.0625f, 0.125f, 0.1875f, 0.25f, 0.3125f, 0.375f, 0.4375f, 0.5f,
    0.5625f, 0.625f, 0.6875f, 0.75f, 0.8125f, 0.875f, 0.9375f, 1.0f};

constexpr const std::array<float, 16>& BookOf(Code4 code) {
  return code == Code4::kDeSigned     ? kDeSigned4
         : code == Code4::kDeUnsigned ? kDeUnsigned4
         : code == Code4::kDeNoZero   ? kDeNoZero4
                                      : kLinear4;
}

constexpr std::array<float, 15> MidpointsOf(Code4 code) {
  std::array<float, 15> out{};
  const auto& book = BookOf(code);
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] =
        static_cast<float>((static_cast<double>(book[i]) + static_cast<double>(book[i + 1])) / 2);
  }
  return out;
}

// Between magnitudes of kDeSigned4; symmetric, so that both signs use the same.
inline constexpr std::array<float, 7> kDeSignedMidpoints = [] {
  std::array<float, 7> out{};
  for (size_t i = 0; i < out.size(); ++i) out[i] = MidpointsOf(Code4::kDeSigned)[7 + i];
  return out;
}();
inline constexpr float kDeSignedTop = MidpointsOf(Code4::kDeSigned)[14];

// Eight runs of magnitudes from the bits of a float, which are about its logarithm: their upper 16
// less `first`, not below 0, times factor / 2^16. With lift + magnitude in place of the magnitude
// the runs near 1 get shorter.
struct Zones {
  float lift;
  uint16_t first, factor;

  constexpr int Of(float magnitude) const {
    const int upper = static_cast<int>(std::bit_cast<uint32_t>(magnitude + lift) >> 16);
    return std::max(upper - first, 0) * factor >> 16;
  }
  // Whether the zones of magnitudes up to 1, and a rounding above, hold one border each in order.
  constexpr bool Part(const std::array<float, 8>& borders) const {
    for (size_t i = 0; i < borders.size(); ++i) {
      const float after = std::bit_cast<float>(std::bit_cast<uint32_t>(borders[i]) + 1);
      if (Of(borders[i]) != static_cast<int>(i) || Of(after) != static_cast<int>(i)) return false;
    }
    return Of(1.000001f) == 7;
  }
};

// The magnitude to compare with in each zone; the last one is of positive numbers alone.
inline constexpr std::array<float, 8> kDeSignedBorders = [] {
  std::array<float, 8> out{};
  std::copy_n(kDeSignedMidpoints.begin(), 7, out.begin());
  out[7] = kDeSignedTop;
  return out;
}();
inline constexpr Zones kDeSignedZones{0.08f, 15721, 872};
static_assert(kDeSignedZones.Part(kDeSignedBorders));

// The 8-bit codebooks: zero, seven decades of magnitudes and 1, numbered by rank. Run 0 is zero,
// run i + 1 decade i of 2^i numbers (signed; twice as many unsigned), run 8 is 1. In a decade
//   y = magnitude * slope + 8/9    is 1 .. 2, and a number's share of it 1 / count,
// so that the leading bits of y are the rank (unsigned: rank + 1), as many as the run says. The row
// of a run is its low three bits: zero and 1 share one in which 1 gets the least y above 1.
// A number's row is the low three bits of the exponent of its rank (signed: 1 for zero) or of its
// rank + 1 (unsigned):
//   number = rank * step + base
struct Decades {
  std::array<float, 8> border;  // between runs
  std::array<float, 8> slope;
  std::array<float, 8> step, base;
};
inline constexpr float kDecadeStart = 8.0f / 9;
inline constexpr float kDecadeMost = 0x1.fffffep0f;   // what is above counts to the last number
inline constexpr uint32_t kDecadeBits = 0x3F000000u;  // bits of 1 less those of 2^-23 * 2^23

constexpr Decades MakeDecades(bool is_signed) {
  Decades t{};
  double power = 1e-6, before = 0;
  for (size_t i = 0; i < 7; ++i, power *= 10) {
    const double count = static_cast<double>(1 << i) * (is_signed ? 1 : 2);
    const double first_rank = is_signed ? count : count - 1;
    const double step = power * 0.9 / count, first = power * 0.1 + step / 2;
    t.border[i] = static_cast<float>((before + first) / 2);
    t.slope[i + 1] = static_cast<float>(1 / (power * 0.9));
    const size_t row = (i + (is_signed ? 7 : 0)) % 8;
    t.step[row] = static_cast<float>(step);
    t.base[row] = static_cast<float>(first - first_rank * step);
    before = first + (count - 1) * step;
  }
  t.border[7] = static_cast<float>((before + 1) / 2);
  t.slope[0] = 0.1135f;
  // 1 is in a row of numbers that zero fits in too.
  t.step[is_signed ? 6 : 7] = is_signed ? 1.0f / 128 : 1.0f / 255;
  if (is_signed) t.step[7] = 0.55e-6f, t.base[7] = 0;
  return t;
}
inline constexpr Decades kDecadesSigned = MakeDecades(true);
inline constexpr Decades kDecadesUnsigned = MakeDecades(false);
inline constexpr Zones kDecadeZones{0, 13104, 166};
static_assert(kDecadeZones.Part(kDecadesSigned.border) &&
              kDecadeZones.Part(kDecadesUnsigned.border));
static_assert(255.0f * kDecadesUnsigned.step[7] == 1.0f);

constexpr const Decades& DecadesOf(Code8 code) {
  return code == Code8::kDeSigned ? kDecadesSigned : kDecadesUnsigned;
}

}  // namespace tw::kernels
