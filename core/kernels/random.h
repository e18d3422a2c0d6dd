#pragma once
// One 32-bit number per element of a parameter: a pure function of (stream key, element index).
//
// A multiply-xorshift mixer of two rounds, keyed before and between them: some 10 vector
// instructions a vector, against 40 for Philox. Good enough for stochastic rounding (the tests
// hold mean, variance and correlations to 5 sigma), not for anything secret. Because the index is
// counted from the parameter's start, the numbers do not depend on where a chunk or bucket begins.
// random_simd.h is the same in vectors, bit for bit. Thread safe: there is no state.

#include <bit>
#include <cstdint>

#include "core/base/host_device.h"

namespace tw::kernels {

// The half of the stream key that all elements share; the upper half of the index goes in here.
struct ElementKey {
  uint32_t first;
  uint32_t second;

  TW_HOST_DEVICE static ElementKey Of(uint64_t key, uint64_t index) {
    const uint64_t high = (index >> 32) * 0x9E3779B97F4A7C15ull;
    return {static_cast<uint32_t>(key) ^ static_cast<uint32_t>(high),
            static_cast<uint32_t>(key >> 32) ^ static_cast<uint32_t>(high >> 32)};
  }
};

inline constexpr uint32_t kMixStride = 0x9E3779B1u;
inline constexpr uint32_t kMixFirst = 0x7FEB352Du;
inline constexpr uint32_t kMixSecond = 0x846CA68Bu;

TW_HOST_DEVICE inline uint32_t ElementBits(ElementKey key, uint32_t low_index) {
  uint32_t x = low_index * kMixStride + key.first;
  x ^= x >> 16;
  x *= kMixFirst;
  x ^= (x >> 15) ^ key.second;
  x *= kMixSecond;
  return x ^ (x >> 16);
}
TW_HOST_DEVICE inline uint32_t ElementBits(uint64_t key, uint64_t index) {
  return ElementBits(ElementKey::Of(key, index), static_cast<uint32_t>(index));
}

// Uniform on the 65,536 midpoints (k + 1/2)/65536 - 1/2: what stochastic rounding adds before it
// rounds to nearest. 17 fractional bits, so that adding it to an integer below 128 is exact: values
// on the grid are never moved. The probability of rounding up is right to 2^-17.
TW_HOST_DEVICE inline float CentredUniform(uint32_t bits) {
  const uint32_t word = ((bits >> 9) & 0x007FFF80u) | 0x3F800040u;
  return std::bit_cast<float>(word) - 1.5f;
}

}  // namespace tw::kernels
