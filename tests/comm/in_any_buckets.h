#pragma once
// What exchanges of dense sums promise: the same means on all ranks, whatever the buckets.

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "tests/comm/exchange_runner.h"
#include "tests/comm/fake_codecs.h"
#include "tests/comm/thread_group.h"

namespace tw {

// The means of each parameter's test messages on n ranks, having checked that every rank gets
// them, from one bucket and from one a parameter.
inline std::vector<std::vector<float>> MeansInAnyBuckets(const std::vector<TensorSpec>& specs,
                                                         const Exchange* exchange, int n) {
  using Means = std::vector<std::vector<float>>;
  const RawCodec codec;
  std::vector<Means> together(static_cast<size_t>(n)), apart(static_cast<size_t>(n));
  RunRanks(n, [&](Communicator& comm) {
    const size_t r = static_cast<size_t>(comm.rank());
    ExchangeRunner runner(comm);
    auto means = runner.Run(specs, codec, exchange);
    ASSERT_TRUE(means.ok()) << means.status();
    together[r] = std::move(*means);
    for (const TensorSpec& spec : specs) {
      auto mean = runner.Run({spec}, codec, exchange);
      ASSERT_TRUE(mean.ok()) << mean.status();
      apart[r].push_back(std::move(mean->at(0)));
    }
  });
  for (const Means& means : together) EXPECT_TRUE(means == together[0]) << n << " ranks";
  for (const Means& means : apart) EXPECT_TRUE(means == together[0]) << n << " ranks";
  return together[0];
}

}  // namespace tw
