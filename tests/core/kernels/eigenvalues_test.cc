#include "core/kernels/eigenvalues.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace tw::kernels {
namespace {

TEST(SymmetricEigenvalues, KnowsSmallMatrices) {
  std::vector<double> a = {2, 1, 1, 2}, values(2);
  SymmetricEigenvalues(a, values);
  EXPECT_NEAR(values[0], 3, 1e-14);
  EXPECT_NEAR(values[1], 1, 1e-14);
  std::vector<double> one = {-4}, single(1);
  SymmetricEigenvalues(one, single);
  EXPECT_EQ(single[0], -4);
  SymmetricEigenvalues({}, {});
}

// The second difference matrix: 2 - 2 cos(pi j / (n + 1)).
TEST(SymmetricEigenvalues, KnowsTheSecondDifference) {
  constexpr size_t n = 24;
  std::vector<double> a(n * n), values(n);
  for (size_t i = 0; i < n; ++i) {
    a[i * n + i] = 2;
    if (i + 1 < n) a[i * n + i + 1] = a[(i + 1) * n + i] = -1;
  }
  SymmetricEigenvalues(a, values);
  for (size_t j = 0; j < n; ++j) {
    const double angle = M_PI * static_cast<double>(n - j) / static_cast<double>(n + 1);
    EXPECT_NEAR(values[j], 2 - 2 * std::cos(angle), 1e-12);
  }
}

TEST(SymmetricEigenvalues, ZerosAndRepeatedValuesEnd) {
  std::vector<double> zeros(9), values(3, 7);
  SymmetricEigenvalues(zeros, values);
  for (const double v : values) EXPECT_EQ(v, 0);
  std::vector<double> ones(9, 1.0);
  SymmetricEigenvalues(ones, values);
  EXPECT_NEAR(values[0], 3, 1e-14);
  EXPECT_NEAR(values[1], 0, 1e-14);
  EXPECT_NEAR(values[2], 0, 1e-14);
}

}  // namespace
}  // namespace tw::kernels
