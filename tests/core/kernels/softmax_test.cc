#include "core/kernels/softmax.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/core/kernels/sample_data.h"
#include "tests/core/kernels/simd_paths.h"

namespace tw {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> Scores(size_t n, uint64_t seed) {
  std::vector<float> x = RandomFloats(n, seed);
  for (float& v : x) v *= 4;
  return x;
}

TEST(Softmax, GivesTheLossAndGradientOfDoublePrecision) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      if (n == 0) continue;
      for (const size_t label : {size_t{0}, n / 2, n - 1}) {
        std::vector<float> x = Scores(n, 5), y = x;
        const double loss = kernels::CrossEntropyInPlace(x, static_cast<int64_t>(label), 0.125f);
        const double expected =
            kernels::reference::CrossEntropyInPlace(y, static_cast<int64_t>(label), 0.125f);
        EXPECT_NEAR(loss, expected, 1e-6 * std::max(1.0, expected)) << n;
        for (size_t i = 0; i < n; ++i) EXPECT_NEAR(x[i], y[i], 1e-6 * std::fabs(y[i]) + 2e-8) << n;
      }
    }
  });
}

TEST(Softmax, GradientsOfARowAddUpToNothing) {
  OnEverySimdTarget([] {
    std::vector<float> x = Scores(32000, 3);
    kernels::CrossEntropyInPlace(x, 17, 1);
    double sum = 0;
    for (const float v : x) sum += static_cast<double>(v);
    EXPECT_NEAR(sum, 0, 2e-6);
  });
}

TEST(Softmax, PiecesGiveWhatTheRowGives) {
  OnEverySimdTarget([] {
    const std::vector<float> x = Scores(1003, 7);
    const auto row = std::span<const float>(x);
    kernels::LogSumExp whole, parts;
    whole.Add(row);
    for (size_t at = 0; at < x.size(); at += 77) {
      parts.Add(row.subspan(at, std::min<size_t>(77, x.size() - at)));
    }
    EXPECT_NEAR(parts.value(), whole.value(), 1e-6);
  });
}

TEST(Softmax, HugeScoresNeitherOverflowNorVanish) {
  OnEverySimdTarget([] {
    std::vector<float> x(40, -3e38f);
    x[33] = 3e38f;
    EXPECT_EQ(kernels::CrossEntropyInPlace(x, 33, 1), 0);
    for (const float v : x) EXPECT_EQ(v, 0);
  });
}

TEST(Softmax, MinusInfinityIsAClassThatCannotBe) {
  OnEverySimdTarget([] {
    for (const size_t n : {5u, 37u}) {
      std::vector<float> x(n, -kInf);
      x[1] = x[3] = 2;
      EXPECT_NEAR(kernels::CrossEntropyInPlace(x, 1, 1), std::log(2.0), 1e-6);
      EXPECT_NEAR(x[1], -0.5f, 1e-6f);
      EXPECT_NEAR(x[3], 0.5f, 1e-6f);
      EXPECT_EQ(x[0], 0);
    }
  });
}

TEST(Softmax, WhatIsNoNumberIsToldByLossAndGradient) {
  OnEverySimdTarget([] {
    for (const size_t n : {4u, 100u}) {
      for (const size_t at : {size_t{0}, n - 1}) {
        for (const float bad : {kNan, kInf}) {
          std::vector<float> x = Scores(n, 9);
          x[at] = bad;
          EXPECT_TRUE(std::isnan(kernels::CrossEntropyInPlace(x, 1, 1)));
          EXPECT_TRUE(std::isnan(x[n / 2]));
        }
      }
      std::vector<float> nothing(n, -kInf);
      EXPECT_TRUE(std::isnan(kernels::CrossEntropyInPlace(nothing, 1, 1)));
    }
  });
}

}  // namespace
}  // namespace tw
