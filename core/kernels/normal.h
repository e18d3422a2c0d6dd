#pragma once
// Standard normal numbers as a pure function of (stream key, index): Philox4x32-10 (Salmon et al.,
// SC'11) and the transform of Box and Muller (1958),
//   sqrt(-2 ln u) * (cos 2 pi v, sin 2 pi v).
// Logarithm, sine and cosine are short series of our own: only integer operations, +, -, *, / and
// sqrt, which IEEE 754 rounds one way. Multiplies and adds are kept apart. The numbers are the same
// bits on every SIMD target, machine and device. No number is above 5.8 in magnitude (u has 24
// bits), which takes 1e-7 from the variance.
//
// Numbers come in blocks of 64, from 16 Philox counters: number 64 b + 16 w + i is made of word w
// of counter 16 b + i; words 0, 1 give the cosine and the sine of one pair, words 2, 3 of another.
// Any vector of up to 16 lanes then stores what it makes side by side. Thread safe.

#include <bit>
#include <cmath>
#include <cstdint>

#include "core/base/host_device.h"
#include "core/base/rng.h"

namespace tw::kernels {

inline constexpr int64_t kNormalBlock = 64;

// out[b * stride + i] = scale * number 64 * (first_block + b) + i of the stream, b < num_blocks,
// i < 64.
void FillNormal(uint64_t key, uint64_t first_block, int64_t num_blocks, float scale, float* out,
                int64_t stride = kNormalBlock);

// What the vectors do, one element at a time.
namespace normal {

// Functions, not arrays: a GPU knows no arrays of the CPU.
struct Coefficients {
  float at[5];
};
inline constexpr uint32_t kRootHalf = 0x3F3504F3u;  // sqrt(1/2) as fp32
inline constexpr float kLn2 = 0.693147182f;
TW_HOST_DEVICE constexpr Coefficients LnSeries() {
  return {{1.0f / 9, 1.0f / 7, 1.0f / 5, 1.0f / 3, 1.0f}};
}
inline constexpr float kRadiansPerStep = 1.46291808e-9f;  // pi/2 * 2^-30
TW_HOST_DEVICE constexpr Coefficients SinSeries() {
  return {{1.0f / 362880, -1.0f / 5040, 1.0f / 120, -1.0f / 6, 1.0f}};
}
TW_HOST_DEVICE constexpr Coefficients CosSeries() {
  return {{1.0f / 40320, -1.0f / 720, 1.0f / 24, -1.0f / 2, 1.0f}};
}

TW_HOST_DEVICE inline float Series(const Coefficients& c, float x) {
  float sum = c.at[0];
  for (int i = 1; i < 5; ++i) sum = sum * x + c.at[i];
  return sum;
}

// sqrt(-2 ln u), u = ((bits >> 8) + 1) * 2^-24 in (0, 1].
TW_HOST_DEVICE inline float Radius(uint32_t bits) {
  const float u = static_cast<float>((bits >> 8) + 1) * 0x1.0p-24f;
  const uint32_t word = std::bit_cast<uint32_t>(u);
  const int32_t e = static_cast<int32_t>(word - kRootHalf) >> 23;
  const float f = std::bit_cast<float>(word - (static_cast<uint32_t>(e) << 23)) - 1.0f;
  const float s = f / (f + 2.0f);
  const float ln = (s + s) * Series(LnSeries(), s * s) + static_cast<float>(e) * kLn2;
  return std::sqrt(ln * -2.0f);
}

struct Turn {
  float cos, sin;
};
// Of bits / 2^32 of a full turn: the nearest quarter, and series for the rest.
TW_HOST_DEVICE inline Turn TurnBy(uint32_t bits) {
  const uint32_t quarter = (bits + 0x20000000u) >> 30;
  const float x =
      static_cast<float>(static_cast<int32_t>(bits - (quarter << 30))) * kRadiansPerStep;
  const float c = Series(CosSeries(), x * x), s = Series(SinSeries(), x * x) * x;
  const float first = quarter & 1 ? s : c, second = quarter & 1 ? c : s;
  const auto signed_by = [](float v, uint32_t sign) {
    return std::bit_cast<float>(std::bit_cast<uint32_t>(v) ^ (sign << 30 & 0x80000000u));
  };
  return {signed_by(first, quarter + 1), signed_by(second, quarter)};
}

}  // namespace normal

// Number `index` of the stream.
TW_HOST_DEVICE inline float NormalReference(uint64_t key, uint64_t index) {
  const uint64_t block = index / kNormalBlock, in_block = index % kNormalBlock;
  const auto words = RngStream{key}.At(block * 16 + in_block % 16);
  const size_t word = in_block / 16;
  const normal::Turn turn = normal::TurnBy(words[word | 1]);
  return normal::Radius(words[word & ~size_t{1}]) * (word & 1 ? turn.sin : turn.cos);
}

}  // namespace tw::kernels
