// The communicator through pinned memory, over threads: its verbs, their order, what it keeps, and
// what goes wrong. The exchanges on it are in tests/cuda/exchange_test.cc.

#include "comm/staged_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/comm/slow_queue.h"
#include "tests/comm/thread_group.h"
#include "tests/comm/verb_checks.h"

namespace tw {
namespace {

using ::testing::HasSubstr;

void RunStagedRanks(int n, double timeout_s,
                    const std::function<void(Communicator&, SlowQueue&)>& body) {
  RunRanks(n, timeout_s, [&](Communicator& wire) {
    SlowQueue queue;
    const auto comm = MakeStagedCommunicator(wire, queue);
    body(*comm, queue);
  });
}
void RunStagedRanks(int n, const std::function<void(Communicator&, SlowQueue&)>& body) {
  RunStagedRanks(n, 60, body);
}

class StagedVerbs : public ::testing::TestWithParam<int> {};

TEST_P(StagedVerbs, MoveTheRightBytesAtUnevenSizes) {
  RunStagedRanks(GetParam(), [](Communicator& comm, SlowQueue&) {
    EXPECT_EQ(CheckVerbs(comm), "");
    EXPECT_TRUE(comm.on_device());
    EXPECT_FALSE(comm.control().on_device());
  });
}

TEST_P(StagedVerbs, BucketsMayStartInAnyOrderOnEveryRank) {
  RunStagedRanks(GetParam(), [](Communicator& comm, SlowQueue&) {
    for (int round = 0; round < 20; ++round) EXPECT_EQ(CheckBucketsInAnyOrder(comm, round), "");
  });
}

// What a rank only receives needs no copy to go out, and still waits for the verb before it.
TEST_P(StagedVerbs, OfABucketStartInOrderOnTheWire) {
  RunStagedRanks(GetParam(), [](Communicator& comm, SlowQueue&) {
    const size_t n = static_cast<size_t>(comm.size());
    std::vector<std::vector<uint8_t>> bytes;
    std::vector<std::unique_ptr<Ticket>> tickets;
    for (size_t k = 0; k < 3 * n; ++k) {
      const int root = static_cast<int>(k % n);
      const uint8_t value = comm.rank() == root ? static_cast<uint8_t>(k + 1) : uint8_t{0};
      bytes.emplace_back(100 + 7 * k, value);
      tickets.push_back(comm.StartBroadcast(bytes.back(), root, {1, 4, "broadcast"}));
    }
    for (size_t k = tickets.size(); k-- > 0;) EXPECT_TRUE(tickets[k]->Wait().ok());
    for (size_t k = 0; k < bytes.size(); ++k) {
      EXPECT_EQ(bytes[k], std::vector<uint8_t>(100 + 7 * k, static_cast<uint8_t>(k + 1)));
    }
  });
}

TEST_P(StagedVerbs, TakeNoMorePinnedMemoryInLaterSteps) {
  RunStagedRanks(GetParam(), [](Communicator& comm, SlowQueue& queue) {
    int after_first = 0;
    for (int step = 0; step < 5; ++step) {
      EXPECT_EQ(CheckAllGatherV(comm, 100003 + step, 17, false, false), "");
      EXPECT_EQ(CheckAllToAllV(comm, 3000 + step), "");
      EXPECT_TRUE(queue.Wait().ok());
      if (step == 0) after_first = queue.num_pinned;
    }
    EXPECT_EQ(queue.num_pinned, after_first);
    EXPECT_EQ(after_first == 0, comm.size() == 1);
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, StagedVerbs, ::testing::Values(1, 2, 3, 4));

TEST(StagedCommunicator, GivesPinnedMemoryBackToTheQueue) {
  RunRanks(2, [](Communicator& wire) {
    SlowQueue queue;
    {
      const auto comm = MakeStagedCommunicator(wire, queue);
      EXPECT_EQ(CheckVerbs(*comm), "");
    }
    EXPECT_GT(queue.num_pinned, 0);
    EXPECT_EQ(queue.num_freed, queue.num_pinned);
  });
}

// Nothing of a rank's own part goes over the host.
TEST(StagedCommunicator, CountsTheWiresBytes) {
  RunStagedRanks(3, [](Communicator& comm, SlowQueue&) {
    const int64_t before = comm.bytes_sent();
    EXPECT_EQ(CheckBroadcast(comm, 1, 1000), "");
    EXPECT_EQ(comm.bytes_sent(), comm.control().bytes_sent());
    EXPECT_EQ(comm.bytes_sent() > before, comm.rank() == 1);
  });
}

TEST(StagedCommunicator, AWireWithoutASumSaysSo) {
  RunStagedRanks(2, [](Communicator& comm, SlowQueue&) {
    std::vector<float> numbers(10);
    const auto ticket =
        comm.StartOwnSum(ViewOf(numbers).mutable_raw(), DType::kF32, {1, 0, "all-reduce"});
    ASSERT_TRUE(ticket);
    const Status status = ticket->Wait();
    EXPECT_THAT(std::string(status.message()), HasSubstr("\"thread\" has no all-reduce"));
    EXPECT_EQ(ExitCode(status), 2);
  });
}

TEST(StagedCommunicator, AMissingRankIsNamedByTheWire) {
  RunStagedRanks(3, 0.4, [](Communicator& comm, SlowQueue&) {
    if (comm.rank() == 2) return;
    const std::vector<int64_t> sizes(3, 10);
    std::vector<uint8_t> mine(10), all(30);
    const Status status = comm.AllGatherV(mine, sizes, all, {120, 3, "gather"});
    EXPECT_EQ(std::string(status.message()), "rank " + std::to_string(comm.rank()) +
                                                 ": gather of bucket 3 in step 120 timed out "
                                                 "after 0.4 s; missing: rank 2");
  });
}

TEST(StagedCommunicator, AVerbDroppedBeforeItsTurnEndsAllLaterOnes) {
  RunStagedRanks(2, [](Communicator& comm, SlowQueue&) {
    std::vector<uint8_t> bytes(10);
    const std::vector<int64_t> sizes(2, 10);
    std::vector<uint8_t> all(20);
    comm.StartAllGatherV(bytes, sizes, all, {1, 3, "gather"});  // the ticket goes away
    const Status later = comm.AllGatherV(bytes, sizes, all, {2, 3, "gather"});
    EXPECT_EQ(std::string(later.message()),
              "gather of bucket 3 in step 2 is given up: gather of bucket 3 in step 1 was left "
              "half way");
  });
}

}  // namespace
}  // namespace tw
