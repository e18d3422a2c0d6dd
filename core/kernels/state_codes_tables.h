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
// Magnitudes by octave, i.e. exponent bits, from [0, 1/64) to [1, 2), row number = the exponent's
// low three bits: the midpoint to compare with, and minus the number of those below (as the bits of
// a float, since rows are looked up as floats). The second one of [1/2, 1) is compared apart.
struct Octaves {
  std::array<float, 8> midpoint, below;
  int32_t first;  // exponent bits of the first row
};
inline constexpr Octaves kDeSignedOctaves = [] {
  Octaves out{{}, {}, 120};
  for (int row = 0; row < 8; ++row) {
    const float from = row == 0 ? 0 : 1.0f / static_cast<float>(1 << (7 - row));
    const float to = 1.0f / static_cast<float>(1 << (6 - std::min(row, 6))) * (row == 7 ? 2 : 1);
    int below = 0;
    float mid = 2;  // none: above every magnitude
    for (size_t i = 0; i < 6; ++i) {
      below += kDeSignedMidpoints[i] < from;
      if (kDeSignedMidpoints[i] >= from && kDeSignedMidpoints[i] < to) mid = kDeSignedMidpoints[i];
    }
    const auto at = static_cast<size_t>(row);
    out.midpoint[at] = mid;
    out.below[at] = std::bit_cast<float>(-below);
  }
  return out;
}();
inline constexpr float kDeSignedTop = MidpointsOf(Code4::kDeSigned)[14];

// The 8-bit codebooks: magnitude number j >= 1 lies in decade i (1..7 here, 0 is zero itself) and
// is step[i-1] * j + base[i-1]; the table has an eighth row for 1.0.
struct Decades {
  std::array<float, 7> border;         // between runs
  std::array<float, 8> slope, offset;  // rank = ceil(a * slope + offset), at most `last`
  std::array<float, 8> last;
  std::array<float, 8> step, base;  // number = rank * step + base
  float top;                        // above: 1.0
};

constexpr Decades MakeDecades(bool is_signed) {
  Decades t{};
  double power = 1e-6, before = 0;
  for (size_t i = 0; i < 7; ++i, power *= 10) {
    const double count = static_cast<double>(1 << i) * (is_signed ? 1 : 2);
    const double first_rank = is_signed ? count : count - 1;
    const double step = power * 0.9 / count, first = power * 0.1 + step / 2;
    t.border[i] = static_cast<float>((before + first) / 2);
    t.slope[i + 1] = static_cast<float>(1 / step);
    t.offset[i + 1] = static_cast<float>(first_rank - 0.5 - first / step);
    t.last[i + 1] = static_cast<float>(first_rank + count - 1);
    t.step[i] = static_cast<float>(step);
    t.base[i] = static_cast<float>(first - first_rank * step);
    before = first + (count - 1) * step;
  }
  t.base[7] = 1;
  t.top = static_cast<float>((before + 1) / 2);
  return t;
}
inline constexpr Decades kDecadesSigned = MakeDecades(true);
inline constexpr Decades kDecadesUnsigned = MakeDecades(false);

constexpr const Decades& DecadesOf(Code8 code) {
  return code == Code8::kDeSigned ? kDecadesSigned : kDecadesUnsigned;
}

}  // namespace tw::kernels
