#include "core/kernels/topk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "core/kernels/index_pack.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/core/kernels/simd_paths.h"

namespace tw {
namespace {

using kernels::IndexedValue;

uint32_t Magnitude(float x) { return std::bit_cast<uint32_t>(x) & 0x7FFFFFFFu; }

// By full sort: magnitude descending, index ascending; indices returned in ascending order.
std::vector<uint32_t> SortedSelection(const std::vector<float>& x, size_t k) {
  std::vector<uint32_t> order(x.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return Magnitude(x[a]) > Magnitude(x[b]); });
  order.resize(k);
  std::sort(order.begin(), order.end());
  return order;
}

// Selects from x + 0.5 g and compares with the full sort, residual included.
void ExpectExact(const std::vector<float>& x, const std::vector<float>& g, size_t k) {
  std::vector<float> message = x;
  if (!g.empty()) {
    for (size_t i = 0; i < x.size(); ++i) message[i] += 0.5f * g[i];
  }
  std::vector<float> buffer = x;
  std::vector<IndexedValue> scratch(kernels::TopKScratch(x.size(), k));
  const auto taken = kernels::TakeTopK({buffer, g.empty() ? nullptr : g.data(), 0.5f}, k, scratch);
  const auto expected = SortedSelection(message, k);
  ASSERT_EQ(taken.size(), k);
  std::vector<float> residual = message;
  for (size_t j = 0; j < k; ++j) {
    ASSERT_EQ(kernels::IndexOf(taken[j]), expected[j]) << "of " << x.size() << ", k " << k;
    ASSERT_EQ(kernels::ValueBitsOf(taken[j]), std::bit_cast<uint32_t>(message[expected[j]]));
    residual[expected[j]] = 0.0f;
  }
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(buffer[i]), std::bit_cast<uint32_t>(residual[i])) << i;
  }
}

// A guess, however bad, changes nothing but the time.
TEST(TopK, AGuessDoesNotChangeTheSelection) {
  OnEverySimdTarget([] {
    for (const size_t n : {size_t{1}, size_t{100}, size_t{4096}, size_t{20'000}}) {
      const std::vector<float> g = RandomFloats(n, 12);
      for (const std::vector<float>& x :
           {RandomFloats(n, 11), AwkwardFloats(n, 13), std::vector<float>(n, 0.0f)}) {
        for (const size_t k : {size_t{1}, std::max<size_t>(n / 100, 1), n / 2, n}) {
          std::vector<float> plain = x;
          std::vector<IndexedValue> scratch(kernels::TopKScratch(n, k)), other = scratch;
          const auto expected = kernels::TakeTopK({plain, g.data(), 0.5f}, k, scratch);
          float least = expected.empty() ? 0.0f : std::numeric_limits<float>::max();
          for (const auto e : expected) {
            least = std::min(least, std::fabs(std::bit_cast<float>(kernels::ValueBitsOf(e))));
          }
          for (const float near : {0.0f, 1e-45f, 1e-3f, 0.5f, 2.0f, 1e30f}) {
            std::vector<float> buffer = x;
            float found = near;
            const auto taken = kernels::TakeTopKNear({buffer, g.data(), 0.5f}, k, other, &found);
            ASSERT_TRUE(std::equal(taken.begin(), taken.end(), expected.begin(), expected.end()));
            ASSERT_EQ(std::memcmp(buffer.data(), plain.data(), n * sizeof(float)), 0);
            ASSERT_EQ(found, least);
          }
        }
      }
    }
  });
}

std::vector<size_t> Counts(size_t n) {
  std::vector<size_t> out = {0, std::min<size_t>(n, 1), n / 100, n / 10, n / 2, n - n / 8, n};
  return out;
}

TEST(TopK, EqualsAFullSortForAllSizes) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      for (const size_t k : Counts(n)) {
        ExpectExact(RandomFloats(n, 1), RandomFloats(n, 2), k);
        ExpectExact(AwkwardFloats(n, 3), {}, k);
      }
    }
  });
}

TEST(TopK, EqualsAFullSortWhereTheThresholdIsSampled) {
  OnEverySimdTarget([] {
    const size_t n = 200'003;
    const auto x = RandomFloats(n, 4), g = RandomFloats(n, 5);
    for (const size_t k : {size_t{1}, size_t{20}, n / 100, n / 10, n / 2, n - 5, n}) {
      ExpectExact(x, g, k);
    }
    ExpectExact(AwkwardFloats(n, 6), {}, n / 100);
  });
}

TEST(TopK, BreaksTiesByLowestIndex) {
  OnEverySimdTarget([] {
    for (const size_t n : {size_t{129}, size_t{100'001}}) {
      std::vector<float> x(n, -2.0f);
      for (size_t i = 0; i < n; i += 3) x[i] = 2.0f;
      for (const size_t k : Counts(n)) ExpectExact(x, {}, k);
      // Few distinct magnitudes, so that the cut falls inside a tie.
      for (size_t i = 0; i < n; ++i) x[i] = static_cast<float>((i * 7919) % 5) - 2.0f;
      for (const size_t k : Counts(n)) ExpectExact(x, {}, k);
    }
  });
}

TEST(TopK, TakesTheFirstZerosWhenNothingElseIsLeft) {
  OnEverySimdTarget([] {
    for (const size_t n : {size_t{1000}, size_t{100'000}}) {
      std::vector<float> x(n, 0.0f);
      ExpectExact(x, {}, n / 100);
      x[n / 2] = -1.0f;
      x[n - 1] = 1e-45f;
      x[3] = -0.0f;
      ExpectExact(x, {}, n / 100);
      ExpectExact(x, {}, 2);
    }
  });
}

TEST(TopK, OrdersDenormals) {
  std::vector<float> x(60'000);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = std::bit_cast<float>(static_cast<uint32_t>((i * 48271) % 60'013));
  }
  OnEverySimdTarget([&] { ExpectExact(x, {}, 600); });
}

// The sample sees only the small part: all candidates sit in a short stretch it mostly misses, or
// the opposite, everything sampled is large and the guess is far too high.
TEST(TopK, RecoversWhenTheSampleMisleads) {
  OnEverySimdTarget([] {
    const size_t n = 300'000;
    std::vector<float> x = RandomFloats(n, 8, 1e-3f);
    for (size_t i = 1000; i < 1100; ++i) x[i] = 1.0f + static_cast<float>(i);
    ExpectExact(x, {}, 50);
    ExpectExact(x, {}, 3000);
    // Strides of 9: elements at multiples of 9 huge, a structure a regular sample would follow.
    for (size_t i = 0; i < n; i += 9) x[i] *= 1e6f;
    ExpectExact(x, {}, n / 100);
    ExpectExact(x, {}, n / 5);
  });
}

TEST(TakeAbove, MovesExactlyWhatExceedsTheThreshold) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      const auto x = RandomFloats(n, 9), g = RandomFloats(n, 10);
      std::vector<float> buffer = x, message = x;
      for (size_t i = 0; i < n; ++i) message[i] += 0.5f * g[i];
      std::vector<IndexedValue> scratch(n + kernels::kTakeSlack);
      const size_t count = kernels::TakeAbove({buffer, g.data(), 0.5f}, 1.25f, scratch);
      size_t at = 0;
      for (size_t i = 0; i < n; ++i) {
        if (std::fabs(message[i]) > 1.25f) {
          ASSERT_LT(at, count);
          ASSERT_EQ(kernels::IndexOf(scratch[at++]), i);
          ASSERT_EQ(buffer[i], 0.0f);
        } else {
          ASSERT_EQ(buffer[i], message[i]);
        }
      }
      EXPECT_EQ(at, count);
    }
  });
}

TEST(TakeAbove, LeavesTheSumWhenThereIsNoRoom) {
  OnEverySimdTarget([] {
    std::vector<float> buffer(1000, 1.0f), g(1000, 2.0f);
    std::vector<IndexedValue> scratch(kernels::kTakeSlack + 999);
    EXPECT_EQ(kernels::TakeAbove({buffer, g.data(), 1.0f}, 0.0f, scratch), 1000u);
    EXPECT_EQ(buffer, std::vector<float>(1000, 3.0f));
    EXPECT_EQ(kernels::TakeAbove({buffer, nullptr, 1.0f}, 3.0f, scratch), 0u);
  });
}

TEST(IndexPack, EveryWidthSurvivesTheRoundTrip) {
  for (int bits = 0; bits <= 32; ++bits) {
    const uint64_t limit = uint64_t{1} << bits;
    std::vector<uint32_t> indices;
    for (uint64_t j = 0; j < std::min<uint64_t>(limit, 50); ++j) {
      indices.push_back(static_cast<uint32_t>(limit <= 50 ? j : j * (limit / 50)));
    }
    std::vector<uint8_t> packed(kernels::PackedIndexBytes(indices.size(), bits) + 1, 0xEE);
    kernels::IndexWriter writer(packed.data(), bits);
    for (const uint32_t i : indices) writer.Put(i);
    writer.Finish();
    EXPECT_EQ(packed.back(), 0xEE) << bits;
    const ByteSpan body = ByteSpan(packed).first(packed.size() - 1);
    kernels::IndexReader reader(body, bits);
    for (const uint32_t i : indices) EXPECT_EQ(reader.Next(), i) << bits;
    // Of a block of its own, so that the sanitizers see a read behind the end.
    const std::vector<uint8_t> alone(body.begin(), body.end());
    std::vector<uint32_t> by_place;
    kernels::ForEachIndex(alone, bits, indices.size(), [&](size_t j, uint32_t index) {
      EXPECT_EQ(j, by_place.size());
      by_place.push_back(index);
    });
    EXPECT_EQ(by_place, indices) << bits;
    EXPECT_TRUE(kernels::AscendingBelow(body, bits, indices.size(), limit)) << bits;
  }
}

TEST(IndexPack, RefusesOrderRangeAndPadding) {
  const auto packed = [](std::vector<uint32_t> indices) {
    std::vector<uint8_t> out(kernels::PackedIndexBytes(indices.size(), 5));
    kernels::IndexWriter writer(out.data(), 5);
    for (const uint32_t i : indices) writer.Put(i);
    writer.Finish();
    return out;
  };
  EXPECT_TRUE(kernels::AscendingBelow(packed({1, 2, 19}), 5, 3, 20));
  EXPECT_FALSE(kernels::AscendingBelow(packed({1, 1, 19}), 5, 3, 20));
  EXPECT_FALSE(kernels::AscendingBelow(packed({2, 1, 19}), 5, 3, 20));
  EXPECT_FALSE(kernels::AscendingBelow(packed({1, 2, 20}), 5, 3, 20));
  auto padded = packed({1, 2, 19});
  padded[1] |= 0x80;
  EXPECT_FALSE(kernels::AscendingBelow(padded, 5, 3, 20));
}

TEST(IndexPack, ListsTravelExactlyOrOnGrids) {
  for (const size_t k : {0, 1, 8, 255, 256, 300}) {
    const size_t n = 3 * k + 1;
    const int bits = kernels::IndexBits(n);
    const std::vector<float> x = RandomFloats(k, k);
    std::vector<kernels::IndexedValue> list;
    for (size_t j = 0; j < k; ++j) {
      list.push_back(kernels::MakeIndexedValue(static_cast<uint32_t>(3 * j), x[j]));
    }
    std::vector<uint8_t> packed(kernels::PackedIndexBytes(k, bits)), values(4 * k);
    kernels::PackEntries(list, bits, packed.data(), values.data());
    EXPECT_TRUE(kernels::AscendingBelow(packed, bits, k, n));
    std::vector<float> out(n, 1.0f);
    kernels::AddAtIndices(out, 2.0f, packed, bits, k, values.data());
    for (size_t j = 0; j < k; ++j) EXPECT_EQ(out[3 * j], 1.0f + 2.0f * x[j]);

    for (const int value_bits : {2, 4, 8, 16}) {
      for (const size_t group : {size_t{256}, std::max<size_t>(k, 1)}) {
        std::vector<uint8_t> indices(packed.size()),
            grids(kernels::GridBytes(k, group, value_bits));
        std::vector<float> residual(n, 7.0f), decoded(n, 0.0f);
        kernels::PackEntriesOnGrids(list, residual, bits, indices.data(), value_bits, group,
                                    grids.data());
        EXPECT_EQ(indices, packed);
        kernels::AddAtIndicesFromGrids(decoded, 1.0f, indices, bits, k, value_bits, group,
                                       grids.data());
        for (size_t j = 0; j < k; ++j) {
          EXPECT_NEAR(residual[3 * j] + decoded[3 * j], x[j], 1e-6);
          EXPECT_LE(std::fabs(residual[3 * j]), std::fabs(x[j]));
          EXPECT_EQ(residual[3 * j + 1], 7.0f);
          EXPECT_EQ(decoded[3 * j + 1], 0.0f);
        }
      }
    }
  }
}

}  // namespace
}  // namespace tw
