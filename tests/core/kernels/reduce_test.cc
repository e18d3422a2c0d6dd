#include "core/kernels/reduce.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "core/kernels/elementwise_reference.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/core/kernels/simd_paths.h"

namespace tw {
namespace {

TEST(Reduce, FindsOneBadElementAnywhere) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      std::vector<float> x = AwkwardFloats(n, 1);
      EXPECT_TRUE(kernels::AllFinite(x));
      for (size_t i = 0; i < n; i += 1 + n / 50) {
        for (const float bad :
             {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
              std::numeric_limits<float>::quiet_NaN()}) {
          const float good = x[i];
          x[i] = bad;
          EXPECT_FALSE(kernels::AllFinite(x)) << n << " at " << i;
          x[i] = good;
        }
      }
    }
  });
}

TEST(Reduce, SumsHaveTheSameBitsOnEveryTarget) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      for (const auto& x : {RandomFloats(n, 2), AwkwardFloats(n, 3)}) {
        const auto shifted = std::span<const float>(x).subspan(n ? 1 : 0);
        EXPECT_EQ(kernels::SumOfSquares(shifted), kernels::reference::SumOfSquares(shifted)) << n;
        EXPECT_EQ(kernels::SumAbs(shifted), kernels::reference::SumAbs(shifted)) << n;
      }
    }
  });
}

TEST(Reduce, SquaresOfHugeValuesDoNotOverflow) {
  const std::vector<float> x(100, std::numeric_limits<float>::max());
  const double one = static_cast<double>(std::numeric_limits<float>::max());
  EXPECT_DOUBLE_EQ(kernels::SumOfSquares(x), 100 * one * one);
}

TEST(Reduce, MeanAbsOfNothingIsZero) {
  EXPECT_EQ(kernels::MeanAbs({}), 0.0);
  const std::vector<float> x = {1.0f, -3.0f};
  EXPECT_EQ(kernels::MeanAbs(x), 2.0);
}

}  // namespace
}  // namespace tw
