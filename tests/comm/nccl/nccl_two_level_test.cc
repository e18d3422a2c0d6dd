// Hosts of several ranks over parts of the NCCL communicator, on devices that are none
// (fake_gpu.h): the bits of threads, with buckets under way together.

#include <gtest/gtest.h>

#include "tests/comm/nccl/fake_gpu.h"
#include "tests/comm/nccl/nccl_ranks.h"
#include "tests/core/engine/two_level_estimates.h"

namespace tw {
namespace {

TEST(NcclTwoLevel, GivesTheBitsOfThreads) {
  for (const std::vector<int>& group_of :
       std::vector<std::vector<int>>{{0, 0, 1, 1}, {0, 1, 0, 1}, {0, 0, 0, 1}}) {
    for (TwoLevelCase& setup : TwoLevelCases(group_of)) {
      setup.one_bucket = false;
      const auto threads = TwoLevelEstimates(setup, 3);
      fake_gpu::Reset();
      RunNcclRanks(static_cast<int>(group_of.size()), [&](Communicator& comm) {
        EXPECT_EQ(TwoLevelEstimates(setup, 3, comm), threads[static_cast<size_t>(comm.rank())])
            << setup.compressor << " " << setup.feedback;
      });
      EXPECT_EQ(fake_gpu::NumMismatched(), 0);
      EXPECT_EQ(fake_gpu::NumAborted(), 0);
    }
  }
}

}  // namespace
}  // namespace tw
