#include "core/kernels/subset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/base/bytes.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/core/kernels/simd_paths.h"

namespace tw {
namespace {

std::vector<uint64_t> Subset(uint64_t key, size_t n, size_t k) {
  std::vector<uint64_t> bitmap(kernels::BitmapWords(n), ~uint64_t{0});
  kernels::MarkSubset(key, n, k, bitmap);
  return bitmap;
}

bool Has(const std::vector<uint64_t>& bitmap, size_t i) { return (bitmap[i / 64] >> (i % 64)) & 1; }

TEST(Subset, HasExactlyKMembersBelowN) {
  for (const size_t n : kSizes) {
    for (const size_t k : {size_t{0}, n / 100, n / 3, n - n / 3, n}) {
      const auto bitmap = Subset(7, n, k);
      size_t members = 0, below = 0;
      for (const uint64_t word : bitmap) members += static_cast<size_t>(std::popcount(word));
      for (size_t i = 0; i < n; ++i) below += Has(bitmap, i);
      EXPECT_EQ(members, k) << n;
      EXPECT_EQ(below, k) << n;
    }
  }
}

TEST(Subset, IsAFunctionOfItsKey) {
  EXPECT_EQ(Subset(1, 1000, 100), Subset(1, 1000, 100));
  EXPECT_NE(Subset(1, 1000, 100), Subset(2, 1000, 100));
}

// All C(5, 2) = 10 and C(5, 3) = 10 (drawn as complements) subsets, 20000 draws each: 2000
// expected, standard deviation 42.
TEST(Subset, DrawsEverySubsetEquallyOften) {
  for (const size_t k : {size_t{2}, size_t{3}}) {
    std::vector<int> counts(32);
    for (uint64_t draw = 0; draw < 20'000; ++draw) {
      const auto stream = RngStream::Of(1, RngPurpose::kEncodeShared, draw, 0, kSharedRank);
      ++counts[Subset(stream.key, 5, k)[0]];
    }
    int subsets = 0;
    for (const int count : counts) {
      if (count == 0) continue;
      ++subsets;
      EXPECT_NEAR(count, 2000, 5 * 42);
    }
    EXPECT_EQ(subsets, 10);
  }
}

TEST(Subset, TakesMarkedElementsInOrder) {
  OnEverySimdTarget([] {
    for (const size_t n : {size_t{1}, size_t{65}, size_t{129}, size_t{4097}, size_t{9000}}) {
      const size_t k = (n + 2) / 3;
      const auto bitmap = Subset(3, n, k);
      const auto x = RandomFloats(n, 4), g = RandomFloats(n, 5);
      std::vector<float> buffer = x;
      std::vector<uint8_t> bytes(4 * k + 1);
      kernels::TakeMarked({buffer, g.data(), 0.5f}, bitmap, 2.0f, bytes.data() + 1);
      std::vector<float> out(n, 1.0f);
      kernels::AddMarked(out, bitmap, 3.0f, bytes.data() + 1);
      size_t at = 0;
      for (size_t i = 0; i < n; ++i) {
        const float m = x[i] + 0.5f * g[i];
        if (Has(bitmap, i)) {
          ASSERT_EQ(LoadLE<float>(bytes.data() + 1 + 4 * at++), m);
          ASSERT_EQ(buffer[i], m - 2.0f * m);
          ASSERT_EQ(out[i], 1.0f + 3.0f * m);
        } else {
          ASSERT_EQ(buffer[i], m);
          ASSERT_EQ(out[i], 1.0f);
        }
      }
    }
  });
}

}  // namespace
}  // namespace tw
