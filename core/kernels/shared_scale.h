#pragma once
// Integers of one scale that all ranks share, so that their sums are sums of what they stand for;
// and the randomized Hadamard rotation, which spreads large elements over their block first.
//
// Element-wise operations and additions in a fixed order only: no result depends on the SIMD
// target. Thread safe.

#include <cmath>
#include <cstdint>
#include <span>

#include "core/base/host_device.h"

namespace tw::kernels {

// The largest magnitude; 0 when empty.
float LargestMagnitude(std::span<const float> x);

// Codes q_i = nearest(x_i * levels / scale + u_i), ties to even, cut to [-levels, levels]; u_i is
// CentredUniform of number first_index + i of the stream, so that q_i is right on the average. A
// scale of 0 gives zeros. REQUIRES: scale >= largest magnitude, finite; codes.size() == x.size().
void RoundToLevels(std::span<const float> x, float scale, int levels, uint64_t key,
                   uint64_t first_index, std::span<int16_t> codes);
void RoundToLevelsReference(std::span<const float> x, float scale, int levels, uint64_t key,
                            uint64_t first_index, std::span<int16_t> codes);
// One of them; u is that of the element.
TW_HOST_DEVICE inline bool IsOrdinaryScale(float scale) {  // levels / scale loses nothing
  return scale >= 0x1p-100f && scale <= 0x1p120f;
}
TW_HOST_DEVICE inline int16_t RoundToLevel(float x, float scale, int levels, float u) {
  if (scale == 0) return 0;
  const float scaled = IsOrdinaryScale(scale)
                           ? x * (static_cast<float>(levels) / scale)
                           : static_cast<float>(static_cast<double>(x) * levels / scale);
  const float q = std::nearbyint(scaled + u), most = static_cast<float>(levels);
  return static_cast<int16_t>(q < -most ? -most : q > most ? most : q);
}
// What a step of codes stands for.
float LevelStep(float scale, int levels);

// Whole messages, in blocks of `block` elements (a power of two of at least 8; the last one may be
// shorter) with a scale each: scales.size() is x.size() / block, rounded up.
// scales = largest magnitudes of the blocks
void LargestOfBlocks(std::span<const float> x, int64_t block, std::span<float> scales);
// Codes as of RoundToLevels; element i draws number first_index + i. REQUIRES: levels <= 127.
void RoundToCodes(std::span<const float> x, int64_t block, std::span<const float> scales,
                  int levels, uint64_t key, uint64_t first_index, std::span<int8_t> codes);
// x = code * step of its block
void ValuesOfCodes(std::span<const int8_t> codes, int64_t block, std::span<const float> scales,
                   int levels, std::span<float> x);
// Rotate and RotateBack of each block; also the last one's length is a power of two.
void RotateBlocks(std::span<float> x, int64_t block, uint64_t key, uint64_t first_index);
void RotateBlocksBack(std::span<float> x, int64_t block, uint64_t key, uint64_t first_index);

// x <- H D x / sqrt(n): D flips sign i where number first_index + i of the stream is odd, H is the
// Hadamard matrix. REQUIRES: n = x.size() is a power of two.
void Rotate(std::span<float> x, uint64_t key, uint64_t first_index);
// The inverse: x <- D H x / sqrt(n).
void RotateBack(std::span<float> x, uint64_t key, uint64_t first_index);
// x <- H x, by the definition.
void HadamardReference(std::span<float> x);

}  // namespace tw::kernels
