#include "core/kernels/normal.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/kernels/simd_paths.h"

namespace tw::kernels {
namespace {

TEST(NormalKernel, EveryTargetAgreesWithTheElementByElementForm) {
  const uint64_t key = 0x0123456789ABCDEFull;
  for (const uint64_t first : {uint64_t{0}, uint64_t{5}, (uint64_t{1} << 28) - 1}) {
    std::vector<float> expected(3 * kNormalBlock);
    for (size_t i = 0; i < expected.size(); ++i) {
      expected[i] = 0.125f * NormalReference(key, first * kNormalBlock + i);
    }
    OnEverySimdTarget([&] {
      std::vector<float> out(expected.size());
      FillNormal(key, first, 3, 0.125f, out.data());
      EXPECT_EQ(out, expected) << first;
      std::vector<float> apart(3 * 70, 9.0f);
      FillNormal(key, first, 3, 0.125f, apart.data(), 70);
      for (size_t i = 0; i < apart.size(); ++i) {
        const size_t b = i / 70, at = i % 70;
        EXPECT_EQ(apart[i], at < 64 ? expected[b * 64 + at] : 9.0f) << i;
      }
      FillNormal(key, first, 0, 1.0f, nullptr);
    });
  }
}

TEST(NormalKernel, IsBoxMullerOfPhiloxToFloatAccuracy) {
  const RngStream rng{77};
  double worst = 0;
  for (uint64_t counter = 0; counter < 4096; ++counter) {
    const auto words = rng.At(counter);
    for (size_t pair = 0; pair < 2; ++pair) {
      const double u = ((words[2 * pair] >> 8) + 1) * 0x1.0p-24;
      const double angle = 2 * M_PI * words[2 * pair + 1] * 0x1.0p-32;
      const double radius = std::sqrt(-2 * std::log(u));
      const uint64_t at = counter / 16 * 64 + pair * 32 + counter % 16;
      worst = std::max(worst, std::abs(NormalReference(77, at) - radius * std::cos(angle)));
      worst = std::max(worst, std::abs(NormalReference(77, at + 16) - radius * std::sin(angle)));
    }
  }
  EXPECT_LT(worst, 2e-6);
}

TEST(NormalKernel, MeetsTheEndsOfBothUniforms) {
  EXPECT_EQ(normal::Radius(0xFFFFFFFFu), 0.0f);  // u = 1
  EXPECT_NEAR(normal::Radius(0), std::sqrt(48 * std::log(2.0)), 1e-5);
  for (uint32_t quarter = 0; quarter < 4; ++quarter) {
    const auto turn = normal::TurnBy(quarter << 30);
    EXPECT_EQ(turn.cos, quarter == 0 ? 1.0f : quarter == 2 ? -1.0f : 0.0f) << quarter;
    EXPECT_EQ(turn.sin, quarter == 1 ? 1.0f : quarter == 3 ? -1.0f : 0.0f) << quarter;
  }
}

// Bounds are five standard errors.
TEST(NormalKernel, HasTheMomentsOfANormal) {
  std::vector<float> x(1 << 20);
  FillNormal(1, 0, static_cast<int64_t>(x.size()) / kNormalBlock, 1, x.data());
  const double n = static_cast<double>(x.size());
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, next = 0, far = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i];
    m1 += v;
    m2 += v * v;
    m3 += v * v * v;
    m4 += v * v * v * v;
    next += v * x[(i + 1) % x.size()];
    far += v * x[(i + 16) % x.size()];  // the other half of its pair, or near it
  }
  EXPECT_NEAR(m1 / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(m2 / n, 1, 5 * std::sqrt(2 / n));
  EXPECT_NEAR(m3 / n, 0, 5 * std::sqrt(15 / n));
  EXPECT_NEAR(m4 / n, 3, 5 * std::sqrt(96 / n));
  EXPECT_NEAR(next / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(far / n, 0, 5 / std::sqrt(n));
}

}  // namespace
}  // namespace tw::kernels
