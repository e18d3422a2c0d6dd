#include "core/data/random_rows.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tw {
namespace {

void ExpectWellFormed(const SparseRows& rows) {
  ASSERT_EQ(rows.row_begin.size(), rows.labels.size() + 1);
  for (size_t r = 0; r < rows.labels.size(); ++r) {
    for (int64_t k = rows.row_begin[r] + 1; k < rows.row_begin[r + 1]; ++k) {
      EXPECT_LT(rows.columns[static_cast<size_t>(k - 1)], rows.columns[static_cast<size_t>(k)]);
    }
  }
  for (const int32_t c : rows.columns) EXPECT_LT(c, rows.features);
}

TEST(RandomRows, DependOnTheSeedAlone) {
  const SparseRows a = GaussianRows(1, 50, 7, 0.5), b = GaussianRows(1, 60, 7, 0.5),
                   c = GaussianRows(2, 50, 7, 0.5);
  EXPECT_TRUE(std::equal(a.values.begin(), a.values.end(), b.values.begin()));
  EXPECT_NE(a.values, c.values);
  EXPECT_EQ(RandomSparseRows(1, 9, 90, 5).columns, RandomSparseRows(1, 9, 90, 5).columns);
}

TEST(RandomRows, GaussianRowsHaveMeanZeroAndVarianceOne) {
  const SparseRows rows = GaussianRows(5, 2000, 10, 0.5);
  ExpectWellFormed(rows);
  double sum = 0, squares = 0;
  for (const double v : rows.values) {
    sum += v;
    squares += v * v;
  }
  const double n = static_cast<double>(rows.values.size());
  EXPECT_NEAR(sum / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 5 * std::sqrt(2 / n));
}

TEST(RandomRows, NoiseTurnsLabels) {
  const SparseRows clean = GaussianRows(5, 2000, 10, 0), noisy = GaussianRows(5, 2000, 10, 0.5);
  EXPECT_EQ(clean.values, noisy.values);
  int turned = 0;
  for (size_t i = 0; i < 2000; ++i) turned += clean.labels[i] != noisy.labels[i];
  EXPECT_NEAR(turned, 2000 * std::atan(0.5) / M_PI, 100);  // 5 sigma
}

TEST(RandomRows, SparseRowsHaveBothLabelsAndFewNonZeros) {
  const SparseRows rows = RandomSparseRows(5, 400, 100000, 100);
  ExpectWellFormed(rows);
  EXPECT_EQ(rows.size(), 400);
  EXPECT_LE(rows.columns.size(), 40000u);
  EXPECT_GT(rows.columns.size(), 39800u);
  int ones = 0;
  for (const int32_t label : rows.labels) ones += label;
  EXPECT_NEAR(ones, 200, 50);
  EXPECT_EQ(RandomSparseRows(1, 3, 4, 0).columns.size(), 0u);
  EXPECT_EQ(RandomSparseRows(1, 0, 4, 2).size(), 0);
}

}  // namespace
}  // namespace tw
