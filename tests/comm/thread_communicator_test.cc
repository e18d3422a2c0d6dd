#include "comm/thread_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/comm/thread_group.h"
#include "tests/comm/verb_checks.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Message(const Status& status) { return std::string(status.message()); }

class ThreadVerbs : public ::testing::TestWithParam<int> {};

TEST_P(ThreadVerbs, MoveTheRightBytesAtUnevenSizes) {
  RunRanks(GetParam(), [](Communicator& comm) { EXPECT_EQ(CheckVerbs(comm), ""); });
}

TEST_P(ThreadVerbs, ThousandSmallOperationsStayInOrder) {
  RunRanks(GetParam(), [](Communicator& comm) {
    for (int64_t i = 0; i < 1000; ++i) {
      const auto all = comm.AllGatherInt(i * comm.size() + comm.rank(), {1, -1, "ints"});
      ASSERT_TRUE(all.ok()) << all.status();
      for (int64_t r = 0; r < comm.size(); ++r) {
        ASSERT_EQ((*all)[static_cast<size_t>(r)], i * comm.size() + r);
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, ThreadVerbs, ::testing::Values(1, 2, 3, 4));

TEST(ThreadCommunicator, CountsWhatLeavesTheRank) {
  RunRanks(3, [](Communicator& comm) {
    const std::vector<uint8_t> mine(10);
    std::vector<uint8_t> all(30);
    const std::vector<int64_t> sizes(3, 10);
    ASSERT_TRUE(comm.AllGatherV(mine, sizes, all, {}).ok());
    EXPECT_EQ(comm.bytes_sent(), 20);
    std::vector<uint8_t> received(30);
    ASSERT_TRUE(comm.AllToAllV(all, sizes, received, sizes, {}).ok());
    EXPECT_EQ(comm.bytes_sent(), 40);
    ASSERT_TRUE(comm.Broadcast(all, 1, {}).ok());
    EXPECT_EQ(comm.bytes_sent(), comm.rank() == 1 ? 100 : 40);
  });
}

TEST(ThreadCommunicator, OneRankSendsNothing) {
  RunRanks(1, [](Communicator& comm) {
    EXPECT_EQ(CheckVerbs(comm), "");
    EXPECT_EQ(comm.bytes_sent(), 0);
  });
}

TEST(ThreadCommunicator, MissedDeadlineNamesOperationAndMissingRanks) {
  RunRanks(4, 0.5, [](Communicator& comm) {
    if (comm.rank() == 2) return;
    const Status status = comm.Barrier({120, 3, "reduce-scatter"});
    EXPECT_EQ(Message(status), "rank " + std::to_string(comm.rank()) +
                                   ": reduce-scatter of bucket 3 in step 120 timed out after "
                                   "0.5 s; missing: rank 2");
    EXPECT_EQ(ExitCode(status), 4);
  });
}

// Only what differs has the fault that it is said to have.
TEST(ThreadCommunicator, AMissingRankIsAPeersFaultInAgreementsToo) {
  RunRanks(2, 0.5, [](Communicator& comm) {
    const uint64_t mine = static_cast<uint64_t>(comm.rank());
    EXPECT_EQ(FaultOf(comm.Agree(mine, "hash", Fault::kBug)), Fault::kBug);
    EXPECT_EQ(FaultOf(comm.Agree(mine, "hash")), Fault::kPeer);
    if (comm.rank() == 1) return;
    EXPECT_EQ(FaultOf(comm.Agree(7, "hash", Fault::kBug)), Fault::kPeer);
  });
}

TEST(ThreadCommunicator, LateRankAndLaterOperationsFailAtOnce) {
  auto group = MakeThreadGroup(3, 0.05);
  const Status waiting = group[0]->Barrier({1, -1, "first"});
  EXPECT_THAT(Message(waiting), HasSubstr("missing: ranks 1, 2"));
  EXPECT_THAT(Message(group[1]->Barrier({1, -1, "first"})), HasSubstr("came too late to first"));
  EXPECT_THAT(Message(group[0]->Barrier({2, -1, "second"})), HasSubstr("given up"));
}

TEST(ThreadCommunicator, DroppedTicketLeavesNoPointerBehind) {
  auto group = MakeThreadGroup(2, 60.0);
  const std::vector<int64_t> sizes(2, 1000);
  {
    std::vector<uint8_t> mine(1000), all(2000);
    group[0]->StartAllGatherV(mine, sizes, all, {});
  }
  std::vector<uint8_t> mine(1000), all(2000);
  EXPECT_FALSE(group[1]->AllGatherV(mine, sizes, all, {}).ok());
}

TEST(ThreadCommunicator, SizesThatRanksDisagreeAboutFailOnAll) {
  RunRanks(2, [](Communicator& comm) {
    std::vector<uint8_t> send(20), recv(20);
    const std::vector<int64_t> send_sizes = {10, 10};
    const std::vector<int64_t> recv_sizes =
        comm.rank() == 0 ? std::vector<int64_t>{10, 10} : std::vector<int64_t>{8, 12};
    const Status status = comm.AllToAllV(send, send_sizes, recv, recv_sizes, {5, 1, "exchange"});
    EXPECT_THAT(Message(status), AllOf(HasSubstr("exchange of bucket 1 in step 5"),
                                       HasSubstr("rank 0 sends 10 bytes, rank 1 expects 8")));
  });
}

TEST(ThreadCommunicator, DifferentOperationsFailOnAll) {
  RunRanks(2, [](Communicator& comm) {
    std::vector<uint8_t> bytes(8);
    const std::vector<int64_t> sizes = {4, 4};
    const Status status = comm.rank() == 0 ? comm.Broadcast(bytes, 0, {9, 0, "broadcast"})
                                           : comm.AllGatherV(ByteSpan(bytes).first(4), sizes, bytes,
                                                             {9, 0, "gather"});
    EXPECT_THAT(Message(status), AllOf(HasSubstr("rank 0 does broadcast of bucket 0 in step 9"),
                                       HasSubstr("rank 1 does gather of bucket 0 in step 9")));
  });
}

TEST(ThreadCommunicatorDeathTest, AbortEndsTheProcessWithTheCode) {
  EXPECT_EXIT(MakeThreadGroup(1, 1.0)[0]->Abort(5), ::testing::ExitedWithCode(5), "");
}

}  // namespace
}  // namespace tw
