#include "core/data/split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

namespace tw {
namespace {

using ::testing::HasSubstr;

std::vector<int32_t> TenClasses(int n) {
  std::vector<int32_t> labels;
  for (int i = 0; i < n; ++i) labels.push_back(i * 7 % 10);
  return labels;
}

// Every position once over all shards, none empty.
void ExpectPartition(const std::vector<std::vector<int64_t>>& shards, size_t n) {
  std::set<int64_t> seen;
  size_t total = 0;
  for (const auto& shard : shards) {
    EXPECT_FALSE(shard.empty());
    seen.insert(shard.begin(), shard.end());
    total += shard.size();
  }
  EXPECT_EQ(total, n);
  EXPECT_EQ(seen.size(), n);
  EXPECT_EQ(*seen.rbegin(), static_cast<int64_t>(n) - 1);
}

TEST(Permutation, HoldsEachNumberOnceAndFollowsTheSeed) {
  const auto of = [](uint64_t seed) {
    return Permutation(RngStream::Of(seed, RngPurpose::kTest, 0, 0, 0), 100);
  };
  auto a = of(1);
  EXPECT_EQ(a, of(1));
  EXPECT_NE(a, of(2));
  EXPECT_FALSE(std::is_sorted(a.begin(), a.end()));
  std::sort(a.begin(), a.end());
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(a[static_cast<size_t>(i)], i);
}

TEST(SplitSamples, HoldsOutTheFractionAndKeepsTheRest) {
  const auto split = SplitSamples(1, 25, 0.1);
  ASSERT_TRUE(split.ok());
  EXPECT_EQ(split->validation.size(), 2u);
  ExpectPartition({split->train, split->validation}, 25);
}

TEST(SplitSamples, RefusesToLeaveAPartEmpty) {
  EXPECT_EQ(FaultOf(SplitSamples(1, 5, 0.1).status()), Fault::kData);
  EXPECT_EQ(FaultOf(SplitSamples(1, 50, 0.0).status()), Fault::kConfig);
  EXPECT_EQ(FaultOf(SplitSamples(1, 50, 1.0).status()), Fault::kConfig);
}

TEST(Shards, EveryKindIsAPartitionAtEveryWorldSize) {
  const auto labels = TenClasses(103);
  for (const char* kind : {"iid", "by_label", "dirichlet"}) {
    for (int world : {1, 2, 3, 4, 7, 103}) {
      for (double alpha : {0.001, 0.3, 100.0}) {
        const auto shards =
            Shards(labels, {.kind = kind, .alpha = alpha, .seed = 5, .world_size = world});
        ASSERT_TRUE(shards.ok()) << shards.status();
        ASSERT_EQ(shards->size(), static_cast<size_t>(world));
        ExpectPartition(*shards, labels.size());
      }
    }
  }
}

TEST(Shards, IidSharesDifferInSizeByOneAtMost) {
  const auto shards = Shards(TenClasses(103), {.world_size = 4});
  ASSERT_TRUE(shards.ok());
  for (const auto& shard : *shards) EXPECT_TRUE(shard.size() == 25 || shard.size() == 26);
}

TEST(Shards, ByLabelGivesEachRankItsOwnClasses) {
  const auto labels = TenClasses(1000);
  const auto shards = Shards(labels, {.kind = "by_label", .world_size = 5});
  ASSERT_TRUE(shards.ok());
  for (size_t r = 0; r < 5; ++r) {
    std::set<int32_t> classes;
    for (int64_t i : (*shards)[r]) classes.insert(labels[static_cast<size_t>(i)]);
    EXPECT_EQ(classes,
              (std::set<int32_t>{static_cast<int32_t>(2 * r), static_cast<int32_t>(2 * r + 1)}));
  }
}

// For shares p of Dirichlet(alpha) over k ranks, E sum p^2 = (alpha + 1) / (k alpha + 1).
TEST(Shards, DirichletSharesHaveTheirSecondMoment) {
  constexpr int kClasses = 1000, kMembers = 200, kRanks = 4;
  std::vector<int32_t> labels;
  for (int i = 0; i < kClasses * kMembers; ++i) labels.push_back(i % kClasses);
  for (double alpha : {0.05, 0.5, 5.0}) {
    const auto shards =
        Shards(labels, {.kind = "dirichlet", .alpha = alpha, .seed = 3, .world_size = kRanks});
    ASSERT_TRUE(shards.ok()) << shards.status();
    double sum = 0;
    for (const auto& shard : *shards) {
      std::vector<double> held(kClasses, 0);
      for (int64_t i : shard)
        held[static_cast<size_t>(labels[static_cast<size_t>(i)])] += 1.0 / kMembers;
      for (double p : held) sum += p * p;
    }
    const double expected = (alpha + 1) / (kRanks * alpha + 1);
    EXPECT_NEAR(sum / kClasses, expected, 0.04 * expected) << "alpha " << alpha;
  }
}

TEST(Shards, NamesWhatIsWrong) {
  EXPECT_EQ(FaultOf(Shards(TenClasses(3), {.world_size = 4}).status()), Fault::kData);
  EXPECT_THAT(std::string(Shards(TenClasses(30), {.kind = "other"}).status().message()),
              HasSubstr("\"other\""));
  EXPECT_EQ(FaultOf(Shards(TenClasses(30), {.kind = "dirichlet", .alpha = 0}).status()),
            Fault::kConfig);
}

TEST(BatchPositions, SeesEachSampleOnceAPassInANewOrder) {
  for (int64_t size : {1, 2, 5, 16, 100, 1000}) {
    std::vector<int64_t> passes[2];
    // Batches of 7 cross the end of a pass; two passes of `size` are cut out of them again.
    std::vector<int64_t> drawn;
    for (int64_t step = 0; static_cast<int64_t>(drawn.size()) < 2 * size; ++step) {
      const auto batch = BatchPositions({.seed = 1, .step = step, .rank = 1}, size, 7);
      drawn.insert(drawn.end(), batch.begin(), batch.end());
    }
    for (int64_t pass = 0; pass < 2; ++pass) {
      passes[pass].assign(drawn.begin() + pass * size, drawn.begin() + (pass + 1) * size);
    }
    if (size >= 16) {
      EXPECT_NE(passes[0], passes[1]);
    }
    for (auto& pass : passes) {
      std::sort(pass.begin(), pass.end());
      for (int64_t i = 0; i < size; ++i) ASSERT_EQ(pass[static_cast<size_t>(i)], i);
    }
  }
}

TEST(BatchPositions, ArePureFunctionsOfTheKey) {
  const BatchKey key{.seed = 3, .step = 1000000, .micro_step = 2, .rank = 1};
  const auto positions = BatchPositions(key, 1000, 8);
  EXPECT_EQ(positions, BatchPositions(key, 1000, 8));
  for (const BatchKey& other : {BatchKey{4, 1000000, 2, 1}, BatchKey{3, 1000001, 2, 1},
                                BatchKey{3, 1000000, 1, 1}, BatchKey{3, 1000000, 2, 0}}) {
    EXPECT_NE(positions, BatchPositions(other, 1000, 8));
  }
}

}  // namespace
}  // namespace tw
