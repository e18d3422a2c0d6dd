#include "core/kernels/natural.h"

#include <cmath>

#include "core/kernels/random.h"
#include "gtest/gtest.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/core/kernels/simd_paths.h"

namespace tw::kernels {
namespace {

TEST(NaturalKernel, EveryTargetAgreesWithTheElementByElementForm) {
  for (const size_t n : kSizes) {
    const auto e = AwkwardFloats(n, 1);
    std::vector<float> g = RandomFloats(n, 2, 1e-3f);
    const uint64_t key = 99, first = (uint64_t{1} << 32) - 2048;
    std::vector<float> residual = e, out = RandomFloats(n, 3);
    std::vector<float> expected_out = out;
    std::vector<uint8_t> expected(NaturalBytes(static_cast<int64_t>(n)), 0);
    for (size_t i = 0; i < n; ++i) {
      const float x = e[i] + 0.5f * g[i];
      expected[i] = NaturalExponent(x, ElementBits(key, first + i));
      if (std::signbit(x)) expected[n + i / 8] |= 1 << (i % 8);
      const float value = NaturalValue(expected[i], std::signbit(x));
      residual[i] = x - value;
      expected_out[i] += 0.25f * value;
    }
    OnEverySimdTarget([&] {
      auto x = e;
      std::vector<uint8_t> body(expected.size(), 0xEE);
      NaturalEncode({x, g.data(), 0.5f}, key, first, body.data());
      EXPECT_EQ(x, residual) << n;
      EXPECT_EQ(body, expected) << n;
      EXPECT_TRUE(CheckNatural(body, static_cast<int64_t>(n)).ok());
      auto to = out;
      NaturalDecodeAdd(body.data(), 0.25f, to);
      EXPECT_EQ(to, expected_out) << n;
    });
  }
}

}  // namespace
}  // namespace tw::kernels
