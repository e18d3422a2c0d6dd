#include "core/kernels/product.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "core/base/rng.h"
#include "tests/core/kernels/simd_paths.h"

namespace tw::kernels {
namespace {

// About half of them 0.
std::vector<float> Values(size_t n, uint32_t id) {
  const RngStream rng = RngStream::Of(13, RngPurpose::kTest, 0, id, 0);
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = std::max(0.0f, 2 * rng.Uniform(i) - 1);
  return out;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

struct Shape {
  size_t rows, inner, columns;
};
constexpr Shape kShapes[] = {{0, 3, 5},  {3, 0, 5},    {3, 5, 0},   {1, 1, 1},  {2, 3, 7},
                             {5, 9, 33}, {32, 70, 64}, {4, 64, 10}, {3, 2, 17}, {7, 31, 200}};

TEST(Product, IsTheReferenceBitForBitOnEveryTarget) {
  for (const Shape s : kShapes) {
    const auto x = Values(s.rows * s.inner, 1), w = Values(s.inner * s.columns, 2);
    const auto start = Values(s.rows * s.columns, 3);
    auto expected = start;
    for (size_t r = 0; r < s.rows; ++r) {
      for (size_t c = 0; c < s.columns; ++c) {
        for (size_t i = 0; i < s.inner; ++i) {
          if (x[r * s.inner + i] == 0) continue;
          const float term = x[r * s.inner + i] * w[i * s.columns + c];
          expected[r * s.columns + c] += term;
        }
      }
    }
    OnEverySimdTarget([&] {
      auto y = start;
      AddProduct(x, w, y, s.rows, s.inner, s.columns);
      EXPECT_TRUE(SameBits(y, expected)) << s.rows << " " << s.inner << " " << s.columns;
    });
  }
}

TEST(Product, TransposedIsTheReferenceBitForBitOnEveryTarget) {
  for (const Shape s : kShapes) {
    const auto x = Values(s.rows * s.inner, 1), y = Values(s.rows * s.columns, 2);
    const auto start = Values(s.inner * s.columns, 3);
    auto expected = start;
    for (size_t i = 0; i < s.inner; ++i) {
      for (size_t c = 0; c < s.columns; ++c) {
        for (size_t r = 0; r < s.rows; ++r) {
          if (x[r * s.inner + i] == 0) continue;
          const float term = x[r * s.inner + i] * y[r * s.columns + c];
          expected[i * s.columns + c] += term;
        }
      }
    }
    OnEverySimdTarget([&] {
      auto w = start;
      AddTransposedProduct(x, y, w, s.rows, s.inner, s.columns);
      EXPECT_TRUE(SameBits(w, expected)) << s.rows << " " << s.inner << " " << s.columns;
    });
  }
}

TEST(Product, ZeroTimesInfinityAddsNothing) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0, 2}, w = {infinity, 3};
  std::vector<float> y = {1};
  AddProduct(x, w, y, 1, 2, 1);
  EXPECT_EQ(y[0], 7);
  std::vector<float> nan = {std::numeric_limits<float>::quiet_NaN(), 0};
  AddProduct(nan, w, y, 1, 2, 1);
  EXPECT_NE(y[0], y[0]);
}

}  // namespace
}  // namespace tw::kernels
