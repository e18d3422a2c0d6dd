// The NCCL communicator on this machine's GPUs, a rank a GPU; what is for several is skipped on
// one.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/base/clock.h"
#include "tests/comm/nccl/gpu/device_bytes.h"
#include "tests/comm/nccl/nccl_ranks.h"
#include "tests/comm/verb_checks.h"

namespace tw {
namespace {

using ::testing::HasSubstr;

int NumGpus() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? std::min(count, 4) : 0;
}

#define TW_NEED_GPUS(n) \
  if (NumGpus() < (n)) GTEST_SKIP() << NumGpus() << " GPUs here, " << (n) << " are needed"

std::vector<uint8_t> Pattern(int from, int to, int64_t bytes) {
  std::vector<uint8_t> out(static_cast<size_t>(bytes));
  for (size_t i = 0; i < out.size(); ++i) out[i] = PatternByte(from, to, i);
  return out;
}

void Append(const std::vector<uint8_t>& bytes, std::vector<uint8_t>* to) {
  to->insert(to->end(), bytes.begin(), bytes.end());
}

// Rank r contributes base + r * step bytes.
void CheckGather(Communicator& comm, int64_t base, int64_t step, const OpTag& tag) {
  std::vector<int64_t> sizes;
  std::vector<uint8_t> expected;
  for (int r = 0; r < comm.size(); ++r) {
    sizes.push_back(base + r * step);
    Append(Pattern(r, -1, sizes.back()), &expected);
  }
  DeviceBytes mine(Pattern(comm.rank(), -1, base + comm.rank() * step)), all(expected.size());
  const Status status = comm.AllGatherV(mine.span(), sizes, all.span(), tag);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(all.Read(), expected);
}

void CheckAllToAll(Communicator& comm, int64_t scale) {
  const int n = comm.size(), me = comm.rank();
  std::vector<int64_t> send_sizes, recv_sizes;
  std::vector<uint8_t> outgoing, expected;
  for (int r = 0; r < n; ++r) {
    send_sizes.push_back(PartBytes(me, r, scale));
    recv_sizes.push_back(PartBytes(r, me, scale));
    Append(Pattern(me, r, send_sizes.back()), &outgoing);
    Append(Pattern(r, me, recv_sizes.back()), &expected);
  }
  DeviceBytes send(outgoing), recv(expected.size());
  const Status status =
      comm.AllToAllV(send.span(), send_sizes, recv.span(), recv_sizes, {1, 2, "exchange"});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(recv.Read(), expected);
}

void CheckAll(Communicator& comm) {
  for (const int64_t base : {0, 1, 4096, 3000001}) {
    CheckGather(comm, base, 0, {1, 1, "gather"});
    CheckGather(comm, base, 17, {1, 1, "gather"});
  }
  for (const int64_t scale : {0, 1, 97, 655370}) CheckAllToAll(comm, scale);
  for (int root = 0; root < comm.size(); ++root) {
    const auto expected = Pattern(root, -1, 1000001);
    DeviceBytes bytes(comm.rank() == root ? expected : std::vector<uint8_t>(expected.size()));
    const Status status = comm.Broadcast(bytes.span(), root, {1, -1, "broadcast"});
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(bytes.Read(), expected);
  }
  EXPECT_EQ(CheckControlVerbs(comm), "");
}

TEST(NcclOnGpus, VerbsMoveTheRightBytes) {
  TW_NEED_GPUS(1);
  for (int n = 1; n <= NumGpus(); ++n) {
    RunNcclRanks(n, [](Communicator& comm) { CheckAll(comm); });
  }
}

TEST(NcclOnGpus, AVerbWaitsForWhatFillsItsBuffers) {
  TW_NEED_GPUS(1);
  RunNcclRanks(NumGpus(), [](Communicator& comm) {
    constexpr size_t kBytes = size_t{256} << 20;
    DeviceBytes mine(kBytes), all(kBytes * static_cast<size_t>(comm.size()));
    const std::vector<int64_t> sizes(static_cast<size_t>(comm.size()),
                                     static_cast<int64_t>(kBytes));
    for (const int value : {1, 2, 3}) {
      // Enqueued only; the default stream is the producer.
      ASSERT_EQ(cudaMemsetAsync(mine.span().data(), value, kBytes, nullptr), cudaSuccess);
      const Status status = comm.AllGatherV(mine.span(), sizes, all.span(), {1, 0, "gather"});
      ASSERT_TRUE(status.ok()) << status;
      const auto found = all.Read();
      EXPECT_EQ(std::count(found.begin(), found.end(), value), static_cast<long>(found.size()));
    }
  });
}

TEST(NcclOnGpus, BucketsMayStartInAnyOrder) {
  TW_NEED_GPUS(2);
  RunNcclRanks(NumGpus(), [](Communicator& comm) {
    std::vector<std::unique_ptr<DeviceBytes>> mine(5), all(5);
    std::vector<std::vector<int64_t>> sizes(5);
    std::vector<std::unique_ptr<Ticket>> tickets(5);
    const size_t n = static_cast<size_t>(comm.size());
    for (int i = 0; i < 5; ++i) {
      const size_t b = static_cast<size_t>(i * (comm.rank() + 1) % 5);
      const int64_t bytes = 100 + static_cast<int64_t>(b);
      mine[b] = std::make_unique<DeviceBytes>(Pattern(comm.rank(), static_cast<int>(b), bytes));
      all[b] = std::make_unique<DeviceBytes>(static_cast<size_t>(bytes) * n);
      sizes[b].assign(n, bytes);
      tickets[b] = comm.StartAllGatherV(mine[b]->span(), sizes[b], all[b]->span(),
                                        {1, static_cast<int32_t>(b), "gather"});
    }
    for (size_t b = 0; b < 5; ++b) {
      ASSERT_TRUE(tickets[b]->Wait().ok());
      std::vector<uint8_t> expected;
      for (int r = 0; r < comm.size(); ++r) {
        Append(Pattern(r, static_cast<int>(b), 100 + static_cast<int64_t>(b)), &expected);
      }
      EXPECT_EQ(all[b]->Read(), expected);
    }
  });
}

TEST(NcclOnGpus, PartsAreViewsOfTheWhole) {
  TW_NEED_GPUS(2);
  RunNcclRanks(NumGpus(), [](Communicator& comm) {
    auto part = comm.Split(comm.rank() % 2);
    ASSERT_TRUE(part.ok()) << part.status();
    CheckAll(**part);
  });
}

TEST(NcclOnGpus, DeadPeerIsNamedWithinTheDeadline) {
  TW_NEED_GPUS(2);
  RunNcclRanks(2, {.timeout_s = 3}, [](Communicator& comm) {
    CheckGather(comm, 1000, 0, {1, 3, "gather"});
    if (comm.rank() == 1) return;
    const double before = NowMs();
    DeviceBytes mine(10), all(20);
    const std::vector<int64_t> sizes(2, 10);
    const Status status = comm.AllGatherV(mine.span(), sizes, all.span(), {2, 3, "gather"});
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("gather of bucket 3 in step 2 timed out after 3 s; missing: rank 1"));
    EXPECT_LT(NowMs() - before, 15e3);
  });
}

}  // namespace
}  // namespace tw

// Exit code 77, which ctest shows as skipped, without a GPU.
int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return tw::NumGpus() == 0 ? 77 : RUN_ALL_TESTS();
}
