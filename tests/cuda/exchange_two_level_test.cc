// Hosts of several ranks on device memory, over pinned memory: the host's bits, with buckets under
// way together.

#include <gtest/gtest.h>

#include "comm/staged_communicator.h"
#include "tests/core/engine/two_level_estimates.h"
#include "tests/cuda/test_device.h"

namespace tw {
namespace {

TEST(DeviceTwoLevel, GivesTheHostsBits) {
  for (const std::vector<int>& group_of :
       std::vector<std::vector<int>>{{0, 0, 1, 1}, {0, 0, 0, 1}}) {
    for (TwoLevelCase& setup : TwoLevelCases(group_of)) {
      setup.one_bucket = false;
      const auto threads = TwoLevelEstimates(setup, 3);
      TestDevice device;
      RunRanks(static_cast<int>(group_of.size()), [&](Communicator& wire) {
        const auto queue = device.NewQueue();
        const auto comm = MakeStagedCommunicator(wire, *queue);
        EXPECT_EQ(TwoLevelEstimates(setup, 3, *comm, queue.get()),
                  threads[static_cast<size_t>(wire.rank())])
            << setup.compressor << " " << setup.feedback;
      });
    }
  }
}

}  // namespace
}  // namespace tw
