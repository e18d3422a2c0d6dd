// The sum by halves: its tree of additions, ranks that are no power of two, any number of buckets.
// What it has in common with other exchanges is in exchange_test.cc.

#include <gtest/gtest.h>

#include <bit>

#include "tests/comm/in_any_buckets.h"

namespace tw {
namespace {

// The sum of an element's terms in the order that the exchange promises.
float TreeSum(std::vector<float> terms) {
  const size_t power = std::bit_floor(terms.size()), extra = terms.size() - power;
  std::vector<float> held;
  for (size_t r = 0; r < 2 * extra; r += 2) held.push_back(terms[r] + terms[r + 1]);
  held.insert(held.end(), terms.begin() + static_cast<ptrdiff_t>(2 * extra), terms.end());
  while (held.size() > 1) {
    const size_t half = held.size() / 2;
    for (size_t v = 0; v < half; ++v) held[v] += held[v + half];
    held.resize(half);
  }
  return held[0];
}

TEST(HalvingExchange, AddsAsATreeInAnyNumberOfBuckets) {
  std::vector<TensorSpec> specs;
  for (const int64_t numel : {20001, 5, 7000, 1, 12345}) {
    specs.push_back(TestSpec(static_cast<uint32_t>(specs.size()), {numel}));
  }
  for (int n = 3; n <= 9; ++n) {
    const auto means = MeansInAnyBuckets(specs, FindExchange("halving"), n);
    ASSERT_EQ(means.size(), specs.size());
    for (const TensorSpec& spec : specs) {
      std::vector<std::vector<float>> messages;
      for (int rank = 0; rank < n; ++rank) messages.push_back(TestMessage(rank, spec));
      const std::vector<float>& mean = means[spec.id];
      ASSERT_EQ(mean.size(), static_cast<size_t>(spec.numel()));
      for (size_t i = 0; i < mean.size(); ++i) {
        std::vector<float> terms;
        for (const std::vector<float>& message : messages) terms.push_back(message[i]);
        ASSERT_EQ(mean[i], TreeSum(terms) * (1.0f / static_cast<float>(n)))
            << n << " ranks, " << spec.name << " at " << i;
      }
    }
  }
}

// Bytes on the wire are those that the plan reckons with.
TEST(HalvingExchange, SendsWhatItSaysItSends) {
  const RawCodec codec;
  const TensorSpec spec = TestSpec(0, {5040});  // divides by every power of two here
  for (int n = 3; n <= 8; ++n) {
    std::vector<int64_t> sent(static_cast<size_t>(n));
    RunRanks(n, [&](Communicator& comm) {
      ExchangeRunner runner(comm);
      const int64_t before = comm.bytes_sent();
      ASSERT_TRUE(runner.Run({spec}, codec, FindExchange("halving")).ok());
      sent[static_cast<size_t>(comm.rank())] = comm.bytes_sent() - before;
    });
    EXPECT_EQ(static_cast<double>(*std::max_element(sent.begin(), sent.end())),
              FindExchange("halving")->WireBytes(spec, 4 * spec.numel(), n))
        << n;
  }
}

}  // namespace
}  // namespace tw
