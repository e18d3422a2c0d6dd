// What goes wrong with the NCCL communicator ends in one line, and in time: on devices that are
// none (fake_gpu.h).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/clock.h"
#include "tests/comm/nccl/fake_gpu.h"
#include "tests/comm/nccl/nccl_ranks.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr double kShort = 0.4;

std::string Message(const Status& status) { return std::string(status.message()); }

// Ten bytes from everybody; `tag` as in errors.
Status Gather(Communicator& comm, const OpTag& tag) {
  const size_t n = static_cast<size_t>(comm.size());
  const std::vector<int64_t> sizes(n, 10);
  std::vector<uint8_t> mine(10), all(10 * n);
  return comm.AllGatherV(mine, sizes, all, tag);
}

class NcclFaults : public ::testing::Test {
 protected:
  // Nothing is left running, whatever went wrong.
  ~NcclFaults() override {
    EXPECT_EQ(fake_gpu::LiveCommunicators(), 0);
    EXPECT_EQ(fake_gpu::LiveStreams(), 0);
  }
};

TEST_F(NcclFaults, DeadPeerIsNamedAndNcclIsAborted) {
  fake_gpu::Reset();
  RunNcclRanks(4, {.timeout_s = kShort}, [](Communicator& comm) {
    ASSERT_TRUE(Gather(comm, {119, 3, "gather"}).ok());
    if (comm.rank() == 2) return;
    const Status status = Gather(comm, {120, 3, "gather"});
    EXPECT_EQ(Message(status), "rank " + std::to_string(comm.rank()) +
                                   ": gather of bucket 3 in step 120 timed out after 0.4 s; "
                                   "missing: rank 2");
    EXPECT_EQ(ExitCode(status), 4);
    const double before = NowMs();
    const Status later = Gather(comm, {121, 3, "gather"});
    EXPECT_LT(NowMs() - before, 1e3 * kShort / 2);
    EXPECT_THAT(Message(later), AllOf(HasSubstr("gather of bucket 3 in step 121 is given up"),
                                      HasSubstr("missing: rank 2")));
    EXPECT_EQ(ExitCode(later), 4);
  });
  EXPECT_EQ(fake_gpu::NumAborted(), 3);
}

TEST_F(NcclFaults, BytesThatNeverComeAreTheNetworksFault) {
  fake_gpu::Reset({.stuck = 1});
  RunNcclRanks(3, {.timeout_s = kShort}, [](Communicator& comm) {
    const Status status = Gather(comm, {7, 0, "gather"});
    EXPECT_THAT(Message(status), AllOf(HasSubstr("gather of bucket 0 in step 7 timed out"),
                                       HasSubstr("all ranks are waiting for the network")));
    EXPECT_EQ(ExitCode(status), 4);
    EXPECT_FALSE(fake_gpu::ErrorLeft());  // by looks at events that are not reached
  });
  EXPECT_EQ(fake_gpu::NumAborted(), 3);
}

TEST_F(NcclFaults, ErrorThatNcclFindsMeanwhileEndsTheWaitAtOnce) {
  fake_gpu::Reset({.stuck = 0});
  RunNcclRanks(2, {.timeout_s = 2}, [](Communicator& comm) {
    const double before = NowMs();
    if (comm.rank() == 1) fake_gpu::FailAsync(1);
    const Status status = Gather(comm, {7, 2, "gather"});
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(ExitCode(status), 4);
    if (comm.rank() == 0) return;  // waits for its deadline
    EXPECT_LT(NowMs() - before, 1000);
    EXPECT_THAT(Message(status), AllOf(HasSubstr("gather of bucket 2 in step 7"),
                                       HasSubstr("NCCL: remote process exited")));
  });
  EXPECT_EQ(fake_gpu::NumAborted(), 2);
}

TEST_F(NcclFaults, RankThatNeverGetsIntoNcclHangsNobody) {
  fake_gpu::Reset({.init_hangs_on = 1});
  RunRanks(3, kShort, [](Communicator& control) {
    const auto comm =
        MakeNcclCommunicator({.device = control.rank(), .timeout_s = kShort}, control);
    EXPECT_EQ(Message(comm.status()),
              "rank " + std::to_string(control.rank()) + ": starting NCCL timed out after 0.4 s");
    EXPECT_EQ(ExitCode(comm.status()), 4);
  });
}

TEST_F(NcclFaults, RankWhereNcclDoesNotStartSaysWhy) {
  fake_gpu::Reset({.init_fails_on = 1});
  RunRanks(2, kShort, [](Communicator& control) {
    const auto comm =
        MakeNcclCommunicator({.device = control.rank(), .timeout_s = kShort}, control);
    EXPECT_THAT(Message(comm.status()),
                HasSubstr(control.rank() == 1 ? "starting NCCL: NCCL: fake error" : "timed out"));
  });
}

TEST_F(NcclFaults, RankWithoutADeviceIsKnownToAllBeforeNcclStarts) {
  fake_gpu::Reset({.num_devices = 1});
  RunRanks(2, kGenerousSeconds, [](Communicator& control) {
    const auto comm = MakeNcclCommunicator({.device = control.rank()}, control);
    EXPECT_EQ(Message(comm.status()), control.rank() == 0
                                          ? "rank 1 cannot use its device"
                                          : "there is no device 1; this process sees 1");
    EXPECT_EQ(ExitCode(comm.status()), 3);
  });
}

TEST_F(NcclFaults, ADeviceHasOneCommunicator) {
  fake_gpu::Reset();
  RunNcclRanks(2, [](Communicator& comm) {
    auto second = MakeThreadGroup(1, 1.0);
    const auto other = MakeNcclCommunicator({.device = comm.rank()}, *second[0]);
    EXPECT_THAT(Message(other.status()), HasSubstr("has an NCCL communicator already"));
    EXPECT_EQ(ExitCode(other.status()), 70);
    EXPECT_TRUE(Gather(comm, {1, 0, "gather"}).ok());
  });
}

TEST_F(NcclFaults, DroppedTicketEndsNcclAndLeavesNoPointerBehind) {
  fake_gpu::Reset();
  RunNcclRanks(2, {.timeout_s = kShort}, [](Communicator& comm) {
    const std::vector<int64_t> sizes(2, 1000);
    if (comm.rank() == 0) {
      {
        std::vector<uint8_t> mine(1000), all(2000);
        const auto ticket = comm.StartAllGatherV(mine, sizes, all, {1, 0, "gather"});
        EXPECT_TRUE(ticket->Test().ok());
      }
      EXPECT_THAT(Message(Gather(comm, {2, 0, "gather"})), HasSubstr("was left half way"));
      return;
    }
    std::vector<uint8_t> mine(1000), all(2000);
    EXPECT_FALSE(comm.AllGatherV(mine, sizes, all, {1, 0, "gather"}).ok());
  });
}

TEST(NcclHangingAbort, IsNotWaitedForForEver) {
  fake_gpu::Reset({.abort_hangs = true});
  const double before = NowMs();
  static std::vector<uint8_t> mine(10), all(20);  // what hangs keeps the buffers
  RunNcclRanks(2, {.timeout_s = kShort}, [](Communicator& comm) {
    if (comm.rank() == 1) return;
    const std::vector<int64_t> sizes(2, 10);
    EXPECT_FALSE(comm.AllGatherV(mine, sizes, all, {1, 0, "gather"}).ok());
  });
  EXPECT_LT(NowMs() - before, 1e4 * kShort);
  fake_gpu::Reset();  // lets the abort come back
  while (fake_gpu::LiveCommunicators() > 0) std::this_thread::yield();
}

}  // namespace
}  // namespace tw
