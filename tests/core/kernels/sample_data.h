#pragma once
// Seeded spans and awkward values for kernel and codec tests.

#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "core/base/rng.h"

namespace tw {

inline constexpr size_t kSizes[] = {0, 1, 2, 3, 7, 31, 127, 128, 129, 1000, 4097};

// Roughly normal numbers (sum of twelve uniforms), a pure function of the seed.
inline std::vector<float> RandomFloats(size_t n, uint64_t seed, float scale = 1.0f) {
  const auto stream = RngStream::Of(seed, RngPurpose::kTest, 0, 0, 0);
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) {
    float sum = -6.0f;
    for (uint64_t j = 0; j < 3; ++j) {
      for (const uint32_t r : stream.At(3 * i + j)) sum += static_cast<float>(r >> 8) * 0x1p-24f;
    }
    out[i] = sum * scale;
  }
  return out;
}

// Finite values at the edges of every format involved, with random bit patterns between them.
inline std::vector<float> AwkwardFloats(size_t n, uint64_t seed) {
  const float edges[] = {0.0f,
                         -0.0f,
                         FLT_TRUE_MIN,
                         -FLT_TRUE_MIN,
                         FLT_MIN,
                         -FLT_MIN,
                         FLT_MAX,
                         -FLT_MAX,
                         65504.0f,
                         65519.996f,
                         65520.0f,
                         -65536.0f,
                         0x1p-24f,
                         0x1p-25f,
                         0x1.8p-25f,
                         0x1.8p-24f,
                         0x1.ffcp-15f,
                         0x1.ffep-15f,
                         0x1p-14f,
                         1.0f + 0x1p-8f,
                         1.0f + 0x1.8p-7f,
                         1.0f + 0x1p-11f,
                         1.0f + 0x1.8p-10f,
                         0x1.fffffep126f};
  const auto stream = RngStream::Of(seed, RngPurpose::kTest, 1, 0, 0);
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) {
    out[i] = i % 3 == 0 ? edges[(i / 3) % std::size(edges)] : std::bit_cast<float>(stream.At(i)[0]);
    if (!std::isfinite(out[i])) out[i] = 1.0f;
  }
  return out;
}

}  // namespace tw
