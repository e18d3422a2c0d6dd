#include "launch/cluster_model.h"

#include <gtest/gtest.h>

#include "launch/explain_cluster.h"

namespace tw {
namespace {

constexpr Arithmetic kArithmetic{10, 20, 3};
// What looks, messages and the agreement at the end may add to the hand-worked times.
constexpr double kSmallMs = 1.5;

// 1 MB/ms of payload.
ClusterLink Link(double share = 1.0) { return {share * 1e6 / 0.956, 0}; }

BucketWork Bucket(double encode_ms, double wire_ms, double decode_ms) {
  return {100, {{encode_ms, wire_ms * 1e6, 1, 0}, {decode_ms}}};
}

TEST(PredictStep, OneRankWaitsForItsOwnEncoding) {
  const std::vector<BucketWork> bucket = {{100, {LaneStage{5}}}};
  const auto p = PredictStep(bucket, kArithmetic, Link(), 1, 2, true);
  EXPECT_DOUBLE_EQ(p.exposed_ms, 5);
  EXPECT_DOUBLE_EQ(p.step_ms, 38);
  EXPECT_EQ(p.sent_bytes, 0);
}

// Ready at 20 and 30 ms, 10 ms on the wire each: the first arrives at 31, the second at 41.
TEST(PredictStep, OnlyTheLastBucketIsExposedOnAFastLink) {
  const std::vector<BucketWork> buckets(2, Bucket(1, 10, 2));
  const auto p = PredictStep(buckets, kArithmetic, Link(), 2, 2, true);
  EXPECT_NEAR(p.exposed_ms, 1 + 10 + 2, kSmallMs);
  EXPECT_NEAR(p.step_ms, 33 + p.exposed_ms, 1e-9);
  EXPECT_NEAR(p.wire_ms, 20, 1e-9);
  EXPECT_NEAR(p.lane_ms, 6, 1e-9);
  EXPECT_EQ(p.sent_bytes, 2e7);
}

TEST(PredictStep, WithoutOverlapEverythingIsExposed) {
  const std::vector<BucketWork> buckets(2, Bucket(1, 10, 2));
  const auto p = PredictStep(buckets, kArithmetic, Link(), 2, 2, false);
  // The second is encoded while the first is on the wire.
  EXPECT_NEAR(p.exposed_ms, 1 + 10 + 10 + 2, kSmallMs);
  // One at a time nothing overlaps.
  EXPECT_NEAR(PredictStep(buckets, kArithmetic, Link(), 2, 1, false).exposed_ms, 26, kSmallMs);
}

TEST(PredictStep, OnASlowLinkTheBytesAreTheStep) {
  const std::vector<BucketWork> buckets(8, Bucket(1, 10, 2));
  const auto p = PredictStep(buckets, kArithmetic, Link(1e-3), 2, 2, true);
  EXPECT_NEAR(p.step_ms, 80e3, 80e3 * 0.001);
}

TEST(PredictStep, LatencyCountsOncePerWaitAndHidesBehindOtherBuckets) {
  const std::vector<BucketWork> one(1, Bucket(0, 1, 0));
  ClusterLink slow = Link();
  slow.latency_ms = 50;
  const double more = PredictStep(one, kArithmetic, slow, 2, 2, true).step_ms -
                      PredictStep(one, kArithmetic, Link(), 2, 2, true).step_ms;
  EXPECT_NEAR(more, 100, 1e-9);  // the bucket's and the agreement's
  const std::vector<BucketWork> many(4, Bucket(0, 1, 0));
  const double all = PredictStep(many, {0, 0, 0}, slow, 2, 4, true).step_ms;
  EXPECT_NEAR(all, 50 + 4 + 50, kSmallMs);
}

TEST(ClusterWords, AreTakenOutAndRead) {
  std::vector<std::string> words = {"ranks=1024", "model.layers=2", "rate=10gbit", "latency=20us",
                                    "run=runs/x"};
  const auto taken = TakeClusterWords(&words, 1);
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(words, std::vector<std::string>{"model.layers=2"});
  EXPECT_EQ(taken->ranks, 1024);
  EXPECT_DOUBLE_EQ(*taken->bytes_per_ms, 1.25e6);
  EXPECT_DOUBLE_EQ(taken->latency_ms, 0.02);
  EXPECT_EQ(taken->run, "runs/x");
}

TEST(ClusterWords, WhatIsNotAllowedIsNamed) {
  using Words = std::vector<std::string>;
  const std::vector<Words> refused = {Words{"ranks=0"},
                                      Words{"ranks=x"},
                                      Words{"ranks="},
                                      Words{"rate=fast"},
                                      Words{"rate=1gbit", "latency=20"},
                                      Words{"rate=1gbit", "latency=-1us"},
                                      Words{"latency=20us"},
                                      Words{"run=runs/x"}};
  for (const Words& bad : refused) {
    Words words = bad;
    const auto taken = TakeClusterWords(&words, 1);
    ASSERT_FALSE(taken.ok()) << bad[0];
    EXPECT_EQ(ExitCode(taken.status()), 2) << bad[0];
  }
}

}  // namespace
}  // namespace tw
