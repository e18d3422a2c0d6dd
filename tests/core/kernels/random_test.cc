#include "core/kernels/random.h"

#include <cmath>
#include <vector>

#include "core/base/rng.h"
#include "gtest/gtest.h"

namespace tw::kernels {
namespace {

std::vector<double> Draw(uint64_t key, uint64_t first, int n) {
  std::vector<double> u(n);
  for (int i = 0; i < n; ++i) u[i] = CentredUniform(ElementBits(key, first + i));
  return u;
}

double Correlation(const std::vector<double>& a, const std::vector<double>& b, size_t lag) {
  double sum = 0;
  for (size_t i = 0; i + lag < a.size(); ++i) sum += a[i] * b[i + lag];
  return sum / static_cast<double>(a.size() - lag) * 12.0;
}

constexpr int kDraws = 1 << 20;

TEST(ElementRandom, MeanAndVarianceAreUniformsToFiveSigma) {
  for (uint64_t key :
       {uint64_t{0}, uint64_t{1}, RngStream::Of(1, RngPurpose::kTest, 2, 3, 4).key}) {
    const auto u = Draw(key, 0, kDraws);
    double mean = 0, square = 0;
    for (double x : u) mean += x, square += x * x;
    mean /= kDraws;
    square /= kDraws;
    EXPECT_NEAR(mean, 0.0, 5 * std::sqrt(1.0 / 12 / kDraws)) << key;
    EXPECT_NEAR(square, 1.0 / 12, 5 * std::sqrt(1.0 / 180 / kDraws)) << key;
  }
}

TEST(ElementRandom, EveryBucketOf256IsEquallyFull) {
  std::vector<int> low(256), high(256);
  for (int i = 0; i < kDraws; ++i) {
    const uint32_t bits = ElementBits(77, i);
    ++low[bits & 255];
    ++high[bits >> 24];
  }
  for (const auto* counts : {&low, &high}) {
    double chi = 0;
    for (int c : *counts) chi += std::pow(c - kDraws / 256.0, 2) / (kDraws / 256.0);
    EXPECT_NEAR(chi, 255.0, 5 * std::sqrt(2 * 255.0));
  }
}

TEST(ElementRandom, NeighboursAndStreamsAreUncorrelated) {
  const double five_sigma = 5 / std::sqrt(double{kDraws});
  const auto a = Draw(RngStream::Of(1, RngPurpose::kTest, 0, 0, 0).key, 0, kDraws);
  for (size_t lag : {1, 2, 3, 8, 16, 128, 4096}) {
    EXPECT_NEAR(Correlation(a, a, lag), 0.0, five_sigma) << lag;
  }
  // Another rank, another step, a key one bit away, the next 2^32 elements.
  for (const auto& b :
       {Draw(RngStream::Of(1, RngPurpose::kTest, 0, 0, 1).key, 0, kDraws),
        Draw(RngStream::Of(1, RngPurpose::kTest, 1, 0, 0).key, 0, kDraws),
        Draw(RngStream::Of(1, RngPurpose::kTest, 0, 0, 0).key ^ 1, 0, kDraws),
        Draw(RngStream::Of(1, RngPurpose::kTest, 0, 0, 0).key, uint64_t{1} << 32, kDraws)}) {
    EXPECT_NEAR(Correlation(a, b, 0), 0.0, five_sigma);
  }
}

TEST(ElementRandom, CentredUniformHitsMidpointsOf65536Only) {
  EXPECT_EQ(CentredUniform(0), -0.5f + 0x1p-17f);
  EXPECT_EQ(CentredUniform(0xFFFFFFFFu), 0.5f - 0x1p-17f);
  EXPECT_EQ(CentredUniform(0x80000000u), 0x1p-17f);
  EXPECT_EQ(CentredUniform(0x8000FFFFu), 0x1p-17f);
}

TEST(ElementRandom, IsAFunctionOfKeyAndIndex) {
  // Pinned: stored checkpoints continue bit for bit only while these stay.
  EXPECT_EQ(ElementBits(0, 0), 0u);
  EXPECT_EQ(ElementBits(0x123456789ABCDEF0ull, 1), 0xC007EA81u);
  EXPECT_EQ(ElementBits(0x123456789ABCDEF0ull, (uint64_t{5} << 32) + 7), 0x4A70A068u);
  EXPECT_EQ(ElementBits(ElementKey::Of(5, 9), 9), ElementBits(5, 9));
  EXPECT_NE(ElementBits(5, 9), ElementBits(5, 9 + (uint64_t{1} << 32)));
}

}  // namespace
}  // namespace tw::kernels
