// The NCCL communicator on devices that are none (fake_gpu.h): the verbs, their order, the
// exchanges, and every registered compressor, against what threads give.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/api/async.h"
#include "tests/comm/exchange_runner.h"
#include "tests/comm/fake_codecs.h"
#include "tests/comm/nccl/fake_gpu.h"
#include "tests/comm/nccl/nccl_ranks.h"
#include "tests/comm/verb_checks.h"

namespace tw {
namespace {

class NcclVerbs : public ::testing::TestWithParam<int> {
 protected:
  NcclVerbs() { fake_gpu::Reset(); }
  ~NcclVerbs() override {
    EXPECT_EQ(fake_gpu::NumMismatched(), 0);
    EXPECT_EQ(fake_gpu::NumAborted(), 0);
    EXPECT_EQ(fake_gpu::LiveCommunicators(), 0);
    EXPECT_EQ(fake_gpu::LiveStreams(), 0);
    EXPECT_EQ(fake_gpu::LiveEvents(), 0);
  }
};

TEST_P(NcclVerbs, MoveTheRightBytesAtUnevenSizes) {
  RunNcclRanks(GetParam(), [](Communicator& comm) {
    EXPECT_EQ(CheckVerbs(comm), "");
    EXPECT_FALSE(fake_gpu::ErrorLeft());
  });
}

TEST_P(NcclVerbs, MoveTheRightBytesWithoutAnnouncements) {
  RunNcclRanks(GetParam(), {.timeout_s = kGenerousSeconds, .same_order = true},
               [](Communicator& comm) { EXPECT_EQ(CheckVerbs(comm), ""); });
}

TEST_P(NcclVerbs, BucketsMayStartInAnyOrderOnEveryRank) {
  RunNcclRanks(GetParam(), [](Communicator& comm) {
    for (int round = 0; round < 20; ++round) EXPECT_EQ(CheckBucketsInAnyOrder(comm, round), "");
  });
}

// Whole numbers: their sum has the same bits in any order.
TEST_P(NcclVerbs, OwnSumsOfBucketsInAnyOrder) {
  RunNcclRanks(GetParam(), [](Communicator& comm) {
    constexpr int kBuckets = 5;
    const int n = comm.size();
    for (int round = 0; round < 10; ++round) {
      std::vector<std::vector<float>> numbers(kBuckets);
      std::vector<std::unique_ptr<Ticket>> tickets(kBuckets);
      for (int i = 0; i < kBuckets; ++i) {
        const int b = (i * (comm.rank() + 1) + round) % kBuckets;
        const size_t at = static_cast<size_t>(b);
        numbers[at].assign(static_cast<size_t>(700 * b), static_cast<float>(b + comm.rank()));
        tickets[at] = comm.StartOwnSum(ViewOf(numbers[at]).mutable_raw(), DType::kF32,
                                       {1, static_cast<int32_t>(b), "all-reduce"});
        ASSERT_TRUE(tickets[at]);
      }
      for (int b = 0; b < kBuckets; ++b) {
        const size_t at = static_cast<size_t>(b);
        ASSERT_TRUE(tickets[at]->Wait().ok());
        EXPECT_EQ(numbers[at], std::vector<float>(numbers[at].size(),
                                                  static_cast<float>(n * b + n * (n - 1) / 2)));
      }
    }
    double wide = comm.rank() + 0x1p-40;
    const MutableByteSpan bytes(reinterpret_cast<uint8_t*>(&wide), sizeof(wide));
    ASSERT_TRUE(comm.StartOwnSum(bytes, DType::kF64, {})->Wait().ok());
    EXPECT_EQ(wide, n * (n - 1) / 2 + n * 0x1p-40);
  });
}

TEST_P(NcclVerbs, ThousandSmallOperationsStayInOrder) {
  RunNcclRanks(GetParam(), [](Communicator& comm) {
    const size_t n = static_cast<size_t>(comm.size());
    const std::vector<int64_t> sizes(n, 1);
    for (int i = 0; i < 1000; ++i) {
      const uint8_t mine = static_cast<uint8_t>(i + 3 * comm.rank());
      std::vector<uint8_t> all(n);
      ASSERT_TRUE(comm.AllGatherV({&mine, 1}, sizes, all, {1, i % 3, "gather"}).ok());
      for (size_t r = 0; r < n; ++r)
        ASSERT_EQ(all[r], static_cast<uint8_t>(i + 3 * static_cast<int>(r)));
    }
  });
}

// NCCL's own collectives are those of all its ranks.
TEST(NcclParts, HaveNoOwnSums) {
  fake_gpu::Reset();
  RunNcclRanks(4, [](Communicator& comm) {
    auto part = comm.Split(comm.rank() / 2);
    ASSERT_TRUE(part.ok()) << part.status();
    std::vector<float> numbers(10);
    EXPECT_EQ((*part)->StartOwnSum(ViewOf(numbers).mutable_raw(), DType::kF32, {}), nullptr);
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, NcclVerbs, ::testing::Values(1, 2, 3, 4));

// A bucket in two levels: gathered inside, by the first ones across, and given back inside.
Async TwoLevels(Communicator& inside, Communicator* across, int32_t bucket, uint8_t mine,
                std::vector<uint8_t>* out) {
  const std::vector<int64_t> inside_sizes(static_cast<size_t>(inside.size()), 1);
  std::vector<uint8_t> of_host(inside_sizes.size());
  const auto gather =
      inside.StartAllGatherV({&mine, 1}, inside_sizes, of_host, {1, bucket, "gather inside"});
  TW_CO_RETURN_IF_ERROR(co_await *gather);
  if (across) {
    const std::vector<int64_t> sizes(static_cast<size_t>(across->size()), 2);
    const auto ticket = across->StartAllGatherV(of_host, sizes, *out, {1, bucket, "gather across"});
    TW_CO_RETURN_IF_ERROR(co_await *ticket);
  }
  const auto share = inside.StartBroadcast(*out, 0, {1, bucket, "broadcast"});
  TW_CO_RETURN_IF_ERROR(co_await *share);
  co_return OkStatus();
}

TEST(NcclParts, TwoLevelsWithBucketsUnderWayTogether) {
  fake_gpu::Reset();
  RunNcclRanks(4, [](Communicator& comm) {
    const int me = comm.rank();
    auto inside = comm.Split(me / 2);
    ASSERT_TRUE(inside.ok()) << inside.status();
    auto across = comm.Split((*inside)->rank() == 0 ? 0 : -1);
    ASSERT_TRUE(across.ok()) << across.status();
    constexpr int kBuckets = 40;
    std::vector<std::vector<uint8_t>> out(kBuckets, std::vector<uint8_t>(4));
    std::vector<std::unique_ptr<AsyncRun>> runs;
    size_t next = 0, num_done = 0;
    const auto finish = [&](AsyncRun& run) {
      EXPECT_TRUE(run.TakeResult().ok());
      ++num_done;
    };
    while (num_done < kBuckets) {
      while (runs.size() < 3 && next < kBuckets) {  // as a lane with concurrent_buckets = 3
        auto run = std::make_unique<AsyncRun>(
            TwoLevels(**inside, across->get(), static_cast<int32_t>(next),
                      static_cast<uint8_t>(10 * next + static_cast<size_t>(me)), &out[next]));
        ++next;
        run->Resume();
        if (run->done()) {
          finish(*run);
        } else {
          runs.push_back(std::move(run));
        }
      }
      // Each rank looks in an order of its own.
      std::rotate(runs.begin(),
                  runs.begin() +
                      static_cast<long>(static_cast<size_t>(me) % std::max<size_t>(runs.size(), 1)),
                  runs.end());
      for (size_t i = 0; i < runs.size(); ++i) {
        const auto progress = runs[i]->waiting()->Test();
        ASSERT_TRUE(progress.ok()) << progress.status();
        if (*progress != Progress::kDone) continue;
        runs[i]->Arrived(OkStatus());
        if (!runs[i]->done()) continue;
        finish(*runs[i]);
        runs.erase(runs.begin() + static_cast<long>(i--));
      }
    }
    for (size_t b = 0; b < kBuckets; ++b) {
      for (size_t r = 0; r < 4; ++r) EXPECT_EQ(out[b][r], static_cast<uint8_t>(10 * b + r));
    }
  });
  EXPECT_EQ(fake_gpu::NumMismatched(), 0);
}

TEST(NcclCommunicator, CountsWhatLeavesTheRank) {
  fake_gpu::Reset();
  RunNcclRanks(3, [](Communicator& comm) {
    const std::vector<int64_t> sizes(3, 10);
    std::vector<uint8_t> mine(10), all(30), received(30);
    const auto sent = [&](const std::function<Status()>& verb) {
      const int64_t before = comm.bytes_sent();
      EXPECT_TRUE(verb().ok());
      return comm.bytes_sent() - before;
    };
    // A witness byte to each other rank; the first one announces the bucket, in 4 bytes.
    const int64_t beside = 2 + (comm.rank() == 0 ? 8 : 0);
    EXPECT_EQ(sent([&] { return comm.AllGatherV(mine, sizes, all, {}); }), 20 + beside);
    EXPECT_EQ(sent([&] { return comm.AllToAllV(all, sizes, received, sizes, {}); }), 20 + beside);
    EXPECT_EQ(sent([&] { return comm.Broadcast(all, 1, {}); }),
              (comm.rank() == 1 ? 60 : 0) + beside);
    std::vector<float> numbers(30);
    const auto own_sum = [&] {
      return comm.StartOwnSum(ViewOf(numbers).mutable_raw(), DType::kF32, {})->Wait();
    };
    EXPECT_EQ(sent(own_sum), 2 * 120 * 2 / 3 + beside);  // as round a ring
  });
}

// What sums go over the communicator's own all-reduce: the last ranks' terms first, here.
TEST(NcclExchanges, LibrarySumsAreNcclsOwn) {
  fake_gpu::Reset();
  const RawCodec codec;
  const std::vector<TensorSpec> specs = {TestSpec(0, {33, 17}), TestSpec(1, {5})};
  RunNcclRanks(3, [&](Communicator& comm) {
    ExchangeRunner runner(comm);
    const auto means = runner.Run(specs, codec, FindExchange("library"));
    ASSERT_TRUE(means.ok()) << means.status();
    for (const TensorSpec& spec : specs) {
      for (size_t i = 0; i < static_cast<size_t>(spec.numel()); ++i) {
        float sum = 0;
        for (int r = 3; r-- > 0;) sum += TestValue(r, spec.id, static_cast<int64_t>(i));
        ASSERT_EQ((*means)[spec.id][i], sum * (1.0f / 3));
      }
    }
  });
  EXPECT_EQ(fake_gpu::NumMismatched(), 0);
}

TEST(NcclExchanges, SparseSumsAreRefused) {
  fake_gpu::Reset();
  RunNcclRanks(2, [](Communicator& comm) {
    ExchangeRunner runner(comm);
    const auto means = runner.Run({TestSpec(0, {40})}, NonzeroCodec(), Merge::kSparse);
    EXPECT_EQ(std::string(means.status().message()),
              "compressor.merge = \"sparse\" adds lists in the host's memory, which \"nccl\" does "
              "not carry; take \"gather\"");
  });
}

// Every registered compressor, each of its merges, on three ranks.
TEST(NcclExchanges, GiveTheBitsOfThreads) {
  fake_gpu::Reset();
  for (const std::string& name : Registry<Compressor>::Get().names()) {
    auto codec = Registry<Compressor>::Get().Find(name)->make(ConfigSection{.name = "compressor"});
    ASSERT_TRUE(codec.ok());
    std::vector<TensorSpec> specs = {TestSpec(0, {33, 17}), TestSpec(1, {8, 300})};
    if (!(*codec)->traits().matrix_only) {
      for (const int64_t numel : {1, 0, 129}) {
        specs.push_back(TestSpec(static_cast<uint32_t>(specs.size()), {numel}));
      }
    }
    for (const Merge merge : (*codec)->traits().merges) {
      if (!FindExchange(merge) || merge == Merge::kSparse) continue;  // lists are the host's
      const auto run = [&](Communicator& comm, std::vector<std::vector<float>>* out) {
        ExchangeRunner runner(comm);
        auto means = runner.Run(specs, **codec, merge);
        ASSERT_TRUE(means.ok()) << name << " " << MergeName(merge) << ": " << means.status();
        *out = std::move(*means);
      };
      std::vector<std::vector<std::vector<float>>> threads(3), devices(3);
      RunRanks(3, [&](Communicator& c) { run(c, &threads[static_cast<size_t>(c.rank())]); });
      RunNcclRanks(3, [&](Communicator& c) { run(c, &devices[static_cast<size_t>(c.rank())]); });
      EXPECT_EQ(threads, devices) << name << " " << MergeName(merge);
    }
  }
  EXPECT_EQ(fake_gpu::NumMismatched(), 0);
}

}  // namespace
}  // namespace tw
