#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/comm/exchange_runner.h"
#include "tests/comm/fake_codecs.h"
#include "tests/comm/flipping_communicator.h"
#include "tests/comm/thread_group.h"

namespace tw {
namespace {

using ::testing::HasSubstr;

// What one rank gets from, and hands on in, an exchange of one parameter's non-zero elements.
struct Outcome {
  std::vector<float> mean;
  int64_t bytes = 0;
};

Outcome Exchanged(Communicator& comm, std::vector<float> message) {
  const NonzeroCodec codec;
  const TensorSpec spec = TestSpec(0, {static_cast<int64_t>(message.size())});
  Workspace scratch;
  ExchangeTimes times;
  CodecContext context{.spec = &spec, .scratch = &scratch};
  std::vector<uint8_t> body(8 * message.size());
  const auto size = codec.EncodeRound(0, {}, {message, nullptr, 1.0f}, context, body);
  TW_CHECK_OK(size);
  Outcome out{std::vector<float>(message.size(), 0.0f), comm.bytes_sent()};
  const MutableByteSpan send = MutableByteSpan(body).first(static_cast<size_t>(*size));
  Segment segment{&codec, context, 1, send, ViewOf(out.mean)};
  TW_CHECK_OK(FindExchange(Merge::kSparse)
                  ->Run({&segment, 1}, send, 0, true, {1, 0, "test"}, comm, scratch, &times));
  out.bytes = comm.bytes_sent() - out.bytes;
  return out;
}

// Element i of rank r is value(r, i).
std::vector<Outcome> OnRanks(int n, int64_t numel,
                             const std::function<float(int, int64_t)>& value) {
  std::vector<Outcome> out(static_cast<size_t>(n));
  RunRanks(n, [&](Communicator& comm) {
    std::vector<float> message;
    for (int64_t i = 0; i < numel; ++i) message.push_back(value(comm.rank(), i));
    out[static_cast<size_t>(comm.rank())] = Exchanged(comm, std::move(message));
  });
  return out;
}

// 64 bins of 1000 elements, 10 entries in each: what a rank keeps of 640 entries is 160, at 10 bits
// an index and 4 bytes a value.
constexpr int64_t kList160 = 160 * 10 / 8 + 160 * 4;
constexpr int64_t kCounts = 3 * 4 * 64 + 3 * 4 * 16;  // of all bins, then of the own sums

TEST(SparseExchange, SendsTwiceThreeQuartersWhereFourRanksAgree) {
  const auto value = [](int rank, int64_t i) { return i % 100 == 7 ? 1.0f + rank : 0.0f; };
  for (const Outcome& out : OnRanks(4, 64000, value)) {
    EXPECT_EQ(out.bytes, 2 * 3 * kList160 + kCounts);  // 2 k (n-1)/n entries
    EXPECT_LT(out.bytes, 3 * 4 * kList160);            // gather: k (n-1)
    for (int64_t i = 0; i < 64000; ++i) {
      ASSERT_EQ(out.mean[static_cast<size_t>(i)], i % 100 == 7 ? 2.5f : 0.0f) << i;
    }
  }
}

TEST(SparseExchange, SendsAsMuchAsAGatherAndAHopWhereNoTwoRanksAgree) {
  const auto value = [](int rank, int64_t i) { return i % 100 == 10 * rank ? 4.0f : 0.0f; };
  for (const Outcome& out : OnRanks(4, 64000, value)) {
    const int64_t list640 = 4 * kList160;
    EXPECT_EQ(out.bytes, 3 * kList160 + 3 * list640 + kCounts);
  }
}

TEST(SparseExchange, DivisionFollowsTheEntries) {
  // All entries in four of 64 bins: every rank owns one of them and sends the same.
  const auto value = [](int, int64_t i) { return i >= 8000 && i < 12000 && i % 2 ? 1.0f : 0.0f; };
  const auto out = OnRanks(4, 64000, value);
  const int64_t list500 = 500 * 10 / 8 + 500 * 4;
  for (const Outcome& o : out) {
    const int64_t lists = 2 * 3 * list500;
    EXPECT_GE(o.bytes, lists + 3 * 4 * 64);
    EXPECT_LE(o.bytes, lists + 3 * 4 * 64 + 3 * 4 * 64);
  }
}

TEST(SparseExchange, SendsPlainElementsWhereTheUnionIsDense) {
  const auto value = [](int rank, int64_t i) { return i % 4 == rank ? 1.0f + rank : 0.0f; };
  for (const Outcome& out : OnRanks(4, 64000, value)) {
    const int64_t list4000 = 4000 * 10 / 8 + 4000 * 4;
    EXPECT_EQ(out.bytes, 3 * list4000 + 3 * 4 * 16000 + kCounts);
    for (int64_t i = 0; i < 64000; ++i) {
      ASSERT_EQ(out.mean[static_cast<size_t>(i)], 0.25f * static_cast<float>(1 + i % 4)) << i;
    }
  }
}

TEST(SparseExchange, SumsThatCancelDoNotTravel) {
  const auto value = [](int rank, int64_t i) {
    return i % 100 == 7 ? (rank == 0 ? 1.0f : -1.0f) : 0.0f;
  };
  for (const Outcome& out : OnRanks(2, 64000, value)) {
    EXPECT_EQ(out.bytes, 320 * 10 / 8 + 320 * 4 + 4 * 64 + 4 * 32);
    for (const float x : out.mean) ASSERT_EQ(x, 0.0f);
  }
}

// In the order and with the rounding of gather: 2^24 + 1 - 2^24 tells the orders apart.
TEST(SparseExchange, AddsInRankOrder) {
  const float terms[] = {0x1p26f, 4.0f, -0x1p26f, 1.0f};
  for (const Outcome& out : OnRanks(4, 100, [&](int rank, int64_t) { return terms[rank]; })) {
    for (const float x : out.mean) EXPECT_EQ(x, ((0x1p24f + 1.0f) - 0x1p24f) + 0.25f);
  }
}

TEST(SparseExchange, GivesTheBitsOfGather) {
  std::vector<TensorSpec> specs;
  for (const int64_t numel : {1, 0, 3, 130, 2, 9001, 7}) {
    specs.push_back(TestSpec(static_cast<uint32_t>(specs.size()), {numel}));
  }
  int codecs = 0;
  for (const std::string& name : Registry<Compressor>::Get().names()) {
    const auto codec = Registry<Compressor>::Get().Find(name)->make(ConfigSection{});
    TW_CHECK_OK(codec);
    const auto& merges = (*codec)->traits().merges;
    if (std::find(merges.begin(), merges.end(), Merge::kSparse) == merges.end()) continue;
    ++codecs;
    for (int n = 1; n <= 4; ++n) {
      RunRanks(n, [&](Communicator& comm) {
        ExchangeRunner gather(comm), sparse(comm);
        const auto expected = gather.Run(specs, **codec, Merge::kGather);
        const auto found = sparse.Run(specs, **codec, Merge::kSparse);
        ASSERT_TRUE(expected.ok() && found.ok()) << expected.status() << found.status();
        EXPECT_EQ(*found, *expected) << name << " on " << n;
      });
    }
  }
  EXPECT_GE(codecs, 3);
}

// What rank 1 of 3 says when a bit of what one operation brings is flipped. The others wait for it
// in vain, or stay content.
std::string ErrorAfterFlip(const char* what, size_t at) {
  std::string message;
  RunRanks(3, 1.0, [&](Communicator& comm) {
    FlippingCommunicator flipping(comm, comm.rank() == 1 ? what : "", at);
    ExchangeRunner runner(flipping);
    const auto means = runner.Run({TestSpec(0, {300})}, NonzeroCodec(), Merge::kSparse);
    if (comm.rank() != 1) return;
    EXPECT_EQ(means.status().code(), absl::StatusCode::kDataLoss) << means.status();
    message = std::string(means.status().message());
  });
  return message;
}

// 60 bins of 5, of which each rank fills almost all elements: plain bins but for the first hop.
TEST(SparseExchange, RefusesWhatItCannotBelieve) {
  EXPECT_THAT(ErrorAfterFlip("counts", 3), HasSubstr("from rank 0: sparse: more entries"));
  EXPECT_THAT(ErrorAfterFlip("unions", 3), HasSubstr("from rank 0: sparse: more entries"));
  EXPECT_THAT(ErrorAfterFlip("scatter", 0), HasSubstr("from rank 0: sparse: "));
}

}  // namespace
}  // namespace tw
