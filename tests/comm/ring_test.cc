// The sum round a ring: its order of additions, long bodies, any number of buckets. What it has in
// common with other exchanges is in exchange_test.cc.

#include <gtest/gtest.h>

#include "tests/comm/in_any_buckets.h"

namespace tw {
namespace {

// Block b of parameter p is summed from rank (b + p) % n on.
TEST(RingExchange, AddsFromTheRankOfTheBlock) {
  RunRanks(3, [](Communicator& comm) {
    const RawCodec codec;
    const TensorSpec spec = TestSpec(1, {3 * 1024 + 5});
    const float terms[] = {0x1p24f, 1.0f, -0x1p24f};
    std::vector<float> send(static_cast<size_t>(spec.numel()), terms[comm.rank()]);
    std::vector<float> mean(send.size(), 0.0f);
    Workspace scratch;
    ExchangeTimes times;
    Segment segment{&codec, {.spec = &spec, .scratch = &scratch}, 1, {}, ViewOf(mean)};
    segment.body = ViewOf(send).mutable_raw();
    ASSERT_TRUE(FindExchange("ring")
                    ->Run({&segment, 1}, segment.body, 0, true, {}, comm, scratch, &times)
                    .ok());
    for (size_t i = 0; i < mean.size(); ++i) {
      const bool from_rank_0 = (i / 1024 + spec.id) % 3 == 0;  // the order 0, 1, 2 loses the 1
      ASSERT_EQ(mean[i], from_rank_0 ? 0.0f : 1.0f / 3) << i;
    }
  });
}

// Chunks of several messages, and parameters that begin in the middle of a chunk.
TEST(RingExchange, LongBodiesInAnyNumberOfBuckets) {
  std::vector<TensorSpec> specs;
  for (const int64_t numel : {200001, 5, 70000, 1024, 123456}) {
    specs.push_back(TestSpec(static_cast<uint32_t>(specs.size()), {numel}));
  }
  for (const int n : {3, 4, 7}) {
    const auto means = MeansInAnyBuckets(specs, FindExchange("ring"), n);
    ASSERT_EQ(means.size(), specs.size());
    for (const TensorSpec& spec : specs) {
      std::vector<std::vector<float>> terms;
      for (int rank = 0; rank < n; ++rank) terms.push_back(TestMessage(rank, spec));
      const std::vector<float>& mean = means[spec.id];
      ASSERT_EQ(mean.size(), static_cast<size_t>(spec.numel()));
      for (size_t i = 0; i < mean.size(); ++i) {
        const size_t first = (i / 1024 + spec.id) % static_cast<size_t>(n);
        float sum = terms[first][i];
        for (size_t k = 1; k < static_cast<size_t>(n); ++k) {
          sum += terms[(first + k) % static_cast<size_t>(n)][i];
        }
        ASSERT_EQ(mean[i], sum * (1.0f / static_cast<float>(n))) << spec.name << " at " << i;
      }
    }
  }
}

}  // namespace
}  // namespace tw
