#include "core/kernels/lowrank.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/core/kernels/simd_paths.h"

namespace tw::kernels {
namespace {

const LowRankShape kShapes[] = {{1, 1, 1},  {2, 3, 1},  {5, 7, 2},    {9, 33, 3},   {64, 48, 4},
                                {17, 5, 5}, {8, 16, 7}, {30, 100, 9}, {100, 257, 4}};

void ExpectNear(const std::vector<float>& a, const std::vector<float>& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << i;
}

TEST(LowRank, ProductsAgreeWithTheReferenceOnEveryTarget) {
  for (const auto& s : kShapes) {
    const auto e = RandomFloats(s.rows * s.cols, 1), g = RandomFloats(s.rows * s.cols, 2);
    const auto qt = RandomFloats(s.rank * s.cols, 3), p = RandomFloats(s.rows * s.rank, 4);
    const double tolerance = 1e-5 * std::sqrt(double(s.rows + s.cols));
    auto sum = e;
    std::vector<float> mq(s.rows * s.rank), ptm(s.rank * s.cols);
    MaterializeTimesQReference({sum, g.data(), 0.5f}, s, qt.data(), mq.data());
    TransposeTimesMReference(sum.data(), s, p.data(), ptm.data());
    OnEverySimdTarget([&] {
      auto m = e;
      std::vector<float> a(mq.size(), 99.0f), b(ptm.size(), 99.0f);
      MaterializeTimesQ({m, g.data(), 0.5f}, s, qt.data(), a.data());
      EXPECT_EQ(m, sum);
      ExpectNear(a, mq, tolerance);
      TransposeTimesM(m.data(), s, p.data(), b.data());
      ExpectNear(b, ptm, tolerance);
      // Without an addend the buffer is only read.
      MaterializeTimesQ({m}, s, qt.data(), a.data());
      EXPECT_EQ(m, sum);
      ExpectNear(a, mq, tolerance);
    });
  }
}

TEST(LowRank, OuterProductsAreTheSameBitsOnEveryTarget) {
  for (const auto& s : kShapes) {
    const auto start = RandomFloats(s.rows * s.cols, 1);
    const auto qt = RandomFloats(s.rank * s.cols, 3), p = RandomFloats(s.rows * s.rank, 4);
    auto expected = start, less = start;
    OuterAddReference(expected.data(), s, p.data(), qt.data(), 0.3f);
    OuterAddReference(less.data(), s, p.data(), qt.data(), -1.0f);
    OnEverySimdTarget([&] {
      auto out = start, residual = start;
      OuterAdd(out.data(), s, p.data(), qt.data(), 0.3f);
      EXPECT_EQ(out, expected);
      OuterResidual(residual.data(), s, p.data(), qt.data());
      EXPECT_EQ(residual, less);
    });
  }
}

double ColumnDot(const std::vector<float>& p, int64_t rows, int64_t rank, int64_t a, int64_t b) {
  double sum = 0;
  for (int64_t i = 0; i < rows; ++i) sum += double{p[i * rank + a]} * p[i * rank + b];
  return sum;
}

TEST(Orthonormalize, ColumnsAreOrthonormalEvenWhenNearlyDependent) {
  const int64_t rows = 200, rank = 6;
  auto p = RandomFloats(rows * rank, 1);
  // Column 3 is column 0 with a part in a thousand of something else; scales differ wildly.
  for (int64_t i = 0; i < rows; ++i) {
    p[i * rank + 3] = p[i * rank] + 1e-3f * p[i * rank + 3];
    p[i * rank + 4] *= 1e-30f;
    p[i * rank + 5] *= 1e30f;
  }
  std::vector<double> scratch(rows * rank);
  Orthonormalize(p, rows, rank, scratch);
  for (int64_t a = 0; a < rank; ++a) {
    for (int64_t b = 0; b <= a; ++b) {
      EXPECT_NEAR(ColumnDot(p, rows, rank, a, b), a == b ? 1.0 : 0.0, 2e-7) << a << " " << b;
    }
  }
}

TEST(Orthonormalize, DependentZeroAndNonFiniteColumnsBecomeZero) {
  const int64_t rows = 50, rank = 5;
  auto p = RandomFloats(rows * rank, 2);
  for (int64_t i = 0; i < rows; ++i) {
    p[i * rank + 1] = -2.0f * p[i * rank];
    p[i * rank + 2] = 0.0f;
  }
  p[3] = INFINITY;
  std::vector<double> scratch(rows * rank);
  Orthonormalize(p, rows, rank, scratch);
  for (int64_t k = 0; k < rank; ++k) {
    EXPECT_NEAR(ColumnDot(p, rows, rank, k, k), k == 0 || k == 4 ? 1.0 : 0.0, 1e-6) << k;
  }
  EXPECT_NEAR(ColumnDot(p, rows, rank, 0, 4), 0.0, 1e-6);
}

TEST(Orthonormalize, KeepsTheFirstColumnsDirection) {
  std::vector<float> p = {3, 1, 4, 0};  // columns (3, 4) and (1, 0)
  std::vector<double> scratch(4);
  Orthonormalize(p, 2, 2, scratch);
  EXPECT_FLOAT_EQ(p[0], 0.6f);
  EXPECT_FLOAT_EQ(p[2], 0.8f);
  EXPECT_FLOAT_EQ(p[1], 0.8f);
  EXPECT_FLOAT_EQ(p[3], -0.6f);
}

TEST(UnitRows, AreScaledOrDrawnWhereThereIsNoDirection) {
  const int64_t rows = 4, cols = 37;
  const size_t n = static_cast<size_t>(cols);
  std::vector<float> from = RandomFloats(4 * n, 5, 1e-30f);  // their squares are no floats
  std::fill_n(from.begin() + cols, n, 0.0f);
  from[3 * n + 1] = NAN;
  std::vector<float> to(4 * n), drawn(4 * n), raw(4 * n);
  kernels::UnitRows(from.data(), rows, cols, 77, to.data());
  kernels::UnitRows(nullptr, rows, cols, 77, drawn.data());
  kernels::DrawUniform(raw, 77, 0);
  for (size_t k = 0; k < 4; ++k) {
    const bool own = k % 2 == 0;
    const float* source = own ? from.data() + k * n : raw.data() + k * n;
    double square = 0, squares_of_source = 0;
    for (size_t j = 0; j < n; ++j) {
      square += double{to[k * n + j]} * to[k * n + j];
      squares_of_source += double{source[j]} * source[j];
    }
    EXPECT_NEAR(square, 1.0, 1e-6);
    for (size_t j = 0; j < n; ++j) {
      EXPECT_NEAR(to[k * n + j], source[j] / std::sqrt(squares_of_source), 1e-6);
      if (!own) {
        EXPECT_EQ(to[k * n + j], drawn[k * n + j]);
      }
      EXPECT_LT(std::fabs(raw[k * n + j]), 0.5f);
    }
  }
  std::vector<float> same = from;
  kernels::UnitRows(same.data(), rows, cols, 77, same.data());
  EXPECT_EQ(same, to);
}

TEST(UnitRows, DrawsGoOnWhereTheLastEnded) {
  std::vector<float> all(20), second(12);
  kernels::DrawUniform(all, 3, 0);
  kernels::DrawUniform(second, 3, 8);
  EXPECT_TRUE(std::equal(second.begin(), second.end(), all.begin() + 8));
}

TEST(Transpose, Scales) {
  const std::vector<float> from = {1, 2, 3, 4, 5, 6};
  std::vector<float> to(6);
  kernels::TransposeScaled(from.data(), 2, 3, 2.0f, to.data());
  EXPECT_EQ(to, (std::vector<float>{2, 8, 4, 10, 6, 12}));
}

}  // namespace
}  // namespace tw::kernels
