#include "core/api/exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/comm/exchange_runner.h"
#include "tests/comm/fake_codecs.h"
#include "tests/comm/flipping_communicator.h"
#include "tests/comm/thread_group.h"

namespace tw {
namespace {

using ::testing::HasSubstr;

using Means = std::vector<std::vector<float>>;

// Sizes that divide by nothing, empty, shorter than the number of ranks, longer than a tile.
std::vector<TensorSpec> AwkwardSpecs() {
  std::vector<TensorSpec> specs;
  for (const int64_t numel : {1, 0, 3, 130, 2, 4097, 7}) {
    specs.push_back(TestSpec(static_cast<uint32_t>(specs.size()), {numel}));
  }
  return specs;
}

struct Case {
  std::string exchange;
  std::string codec;
  int ranks;
  const Exchange* found() const { return FindExchange(exchange); }
};
std::unique_ptr<Compressor> MakeFake(const std::string& name) {
  if (name == "raw") return std::make_unique<RawCodec>();
  if (name == "nonzero") return std::make_unique<NonzeroCodec>();
  return std::make_unique<ByteBlockCodec>();
}
std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (int n = 1; n <= 4; ++n) {
    cases.push_back({"sum", "raw", n});
    cases.push_back({"ring", "raw", n});
    cases.push_back({"halving", "raw", n});
    cases.push_back({"gather", "raw", n});
    cases.push_back({"gather", "nonzero", n});
    cases.push_back({"gather", "byteblock", n});
    cases.push_back({"reencode", "byteblock", n});
    cases.push_back({"sparse", "nonzero", n});
  }
  return cases;
}

class Exchanges : public ::testing::TestWithParam<Case> {
 protected:
  // The means on every rank, from one call a bucket; `split` puts each parameter in its own.
  std::vector<Means> RunAll(const std::vector<TensorSpec>& specs, bool split) {
    const auto codec = MakeFake(GetParam().codec);
    std::vector<Means> all(static_cast<size_t>(GetParam().ranks));
    RunRanks(GetParam().ranks, [&](Communicator& comm) {
      ExchangeRunner runner(comm);
      Means& mine = all[static_cast<size_t>(comm.rank())];
      std::vector<std::vector<TensorSpec>> buckets;
      if (split) {
        for (const TensorSpec& spec : specs) buckets.push_back({spec});
      } else {
        buckets.push_back(specs);
      }
      for (const auto& bucket : buckets) {
        auto means = runner.Run(bucket, *codec, GetParam().found());
        ASSERT_TRUE(means.ok()) << means.status();
        for (auto& mean : *means) mine.push_back(std::move(mean));
      }
    });
    return all;
  }
};

TEST_P(Exchanges, GiveTheMeanOfTheDecodedBodies) {
  const auto codec = MakeFake(GetParam().codec);
  const std::vector<TensorSpec> specs = AwkwardSpecs();
  const Means means = RunAll(specs, false)[0];
  auto group = MakeThreadGroup(GetParam().ranks, 1.0);
  ExchangeRunner runner(*group[0]);
  // Re-encoding rounds once more, by less than one unit of the block's scale.
  const bool twice = GetParam().exchange == "reencode" && GetParam().ranks > 1;
  for (size_t s = 0; s < specs.size(); ++s) {
    const auto exact = runner.MeanOfDecoded(specs[s], *codec);
    ASSERT_TRUE(exact.ok()) << exact.status();
    for (size_t i = 0; i < exact->size(); ++i) {
      ASSERT_NEAR(means[s][i], (*exact)[i], twice ? 1.7 / 126 : 1e-6) << s << " at " << i;
    }
  }
}

TEST_P(Exchanges, GiveAllRanksTheSameBits) {
  const std::vector<Means> all = RunAll(AwkwardSpecs(), false);
  for (const Means& means : all) EXPECT_EQ(means, all[0]);
}

TEST_P(Exchanges, DoNotDependOnTheNumberOfBuckets) {
  EXPECT_EQ(RunAll(AwkwardSpecs(), false)[0], RunAll(AwkwardSpecs(), true)[0]);
}

TEST_P(Exchanges, NeedNoMoreMemoryInLaterSteps) {
  const auto codec = MakeFake(GetParam().codec);
  RunRanks(GetParam().ranks, [&](Communicator& comm) {
    ExchangeRunner runner(comm);
    ASSERT_TRUE(runner.Run(AwkwardSpecs(), *codec, GetParam().found()).ok());
    const size_t first = runner.scratch_bytes();
    ASSERT_TRUE(runner.Run(AwkwardSpecs(), *codec, GetParam().found()).ok());
    EXPECT_EQ(runner.scratch_bytes(), first);
  });
}

TEST_P(Exchanges, TakeBucketsWithNothingInThem) {
  const auto codec = MakeFake(GetParam().codec);
  RunRanks(GetParam().ranks, [&](Communicator& comm) {
    ExchangeRunner runner(comm);
    EXPECT_TRUE(runner.Run({TestSpec(0, {0}), TestSpec(1, {0})}, *codec, GetParam().found()).ok());
    EXPECT_TRUE(runner.Run({}, *codec, GetParam().found()).ok());
  });
}

INSTANTIATE_TEST_SUITE_P(Merges, Exchanges, ::testing::ValuesIn(AllCases()),
                         [](const ::testing::TestParamInfo<Case>& info) {
                           return info.param.exchange + "_" + info.param.codec + "_" +
                                  std::to_string(info.param.ranks);
                         });

// The second rounding of this codec is biased. With its error kept, the means of many equal steps
// average to the mean of what was sent; without, they stay where they are.
TEST(ReencodeExchange, HopFeedbackLosesNothingInTheLongRun) {
  constexpr int kSteps = 40;
  const auto specs = AwkwardSpecs();
  const ByteBlockCodec codec;
  for (int n = 2; n <= 4; ++n) {
    std::vector<Means> sums(static_cast<size_t>(n));
    double kept = 0, forgotten = 0;  // largest distances
    RunRanks(n, [&](Communicator& comm) {
      ExchangeRunner with(comm), without(comm);
      with.hop_feedback = true;
      Means& sum = sums[static_cast<size_t>(comm.rank())];
      for (int step = 0; step < kSteps; ++step) {
        const auto means = with.Run(specs, codec, Merge::kReencode);
        ASSERT_TRUE(means.ok()) << means.status();
        if (step == 0) sum = *means;
        for (size_t s = 0; step > 0 && s < specs.size(); ++s) {
          for (size_t i = 0; i < sum[s].size(); ++i) sum[s][i] += (*means)[s][i];
        }
      }
      const auto once = without.Run(specs, codec, Merge::kReencode);
      ASSERT_TRUE(once.ok());
      if (comm.rank() != 0) return;
      for (size_t s = 0; s < specs.size(); ++s) {
        const auto exact = without.MeanOfDecoded(specs[s], codec);
        ASSERT_TRUE(exact.ok());
        for (size_t i = 0; i < exact->size(); ++i) {
          kept = std::max(kept, std::abs(sum[s][i] / kSteps - (*exact)[i]));
          forgotten = std::max(forgotten, std::abs((*once)[s][i] - (*exact)[i]));
        }
      }
    });
    for (const Means& sum : sums) EXPECT_EQ(sum, sums[0]);
    EXPECT_LT(kept, 2.0 / 126 / kSteps + 1e-5);
    EXPECT_GT(forgotten, 0.3 / 126);
  }
}

TEST(FindExchange, KnowsTheRegisteredMerges) {
  for (const Merge merge : {Merge::kSum, Merge::kGather, Merge::kReencode, Merge::kSparse}) {
    ASSERT_NE(FindExchange(merge), nullptr) << MergeName(merge);
    EXPECT_EQ(FindExchange(merge)->merge(), merge);
  }
}

// 2^24 + 1 - 2^24: the three orders of addition give 0, 1 and 1 in fp32.
TEST(SumExchange, AddsInRankOrder) {
  RunRanks(3, [](Communicator& comm) {
    const RawCodec codec;
    const TensorSpec spec = TestSpec(0, {5});
    const float terms[] = {0x1p24f, 1.0f, -0x1p24f};
    std::vector<float> send(5, terms[comm.rank()]), mean(5, 0.0f);
    Workspace scratch;
    ExchangeTimes times;
    Segment segment{&codec, {.spec = &spec, .scratch = &scratch}, 1, {}, ViewOf(mean)};
    segment.body = ViewOf(send).mutable_raw();
    ASSERT_TRUE(FindExchange(Merge::kSum)
                    ->Run({&segment, 1}, segment.body, 0, true, {}, comm, scratch, &times)
                    .ok());
    for (const float x : mean) EXPECT_EQ(x, 0.0f);
  });
}

// Runs one parameter of `dtype` whose every element is `value(rank)` through the raw codec.
std::vector<double> SumOfType(DType dtype, int ranks, const std::function<float(int)>& value,
                              const Exchange* exchange = FindExchange(Merge::kSum)) {
  std::vector<double> found(static_cast<size_t>(ranks));
  RunRanks(ranks, [&](Communicator& comm) {
    const RawCodec codec;
    const TensorSpec spec = TestSpec(0, {7}, dtype);
    alignas(8) uint8_t send[56], mean_bytes[56] = {};
    const TensorView own{send, dtype, 7}, mean{mean_bytes, dtype, 7};
    ConvertFromFp32(std::vector<float>(7, value(comm.rank())), own);
    Workspace scratch;
    ExchangeTimes times;
    Segment segment{&codec, {.spec = &spec, .scratch = &scratch}, 1, own.mutable_raw(), mean};
    ASSERT_TRUE(
        exchange->Run({&segment, 1}, segment.body, 0, true, {}, comm, scratch, &times).ok());
    std::vector<float> out(7);
    ConvertToFp32(mean, out);
    for (const float x : out) EXPECT_EQ(x, out[0]);
    found[static_cast<size_t>(comm.rank())] = out[0];
  });
  return found;
}

TEST(SumExchange, KeepsTheTypeOfLosslessBodies) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kF16, DType::kBF16}) {
    for (int n = 1; n <= 4; ++n) {
      for (const double mean : SumOfType(dtype, n, [](int rank) { return 2.0f * rank; })) {
        EXPECT_EQ(mean, n - 1.0) << DTypeName(dtype) << " on " << n;
      }
    }
  }
}

TEST(SumExchange, EveryWayOfSummingTakesEveryType) {
  const auto value = [](int rank) { return 2.0f * static_cast<float>(rank); };
  for (const char* name : {"ring", "halving"}) {
    for (const DType dtype : {DType::kF32, DType::kF64, DType::kF16, DType::kBF16}) {
      for (int n = 1; n <= 6; ++n) {
        for (const double mean : SumOfType(dtype, n, value, FindExchange(name))) {
          EXPECT_EQ(mean, n - 1.0) << name << " of " << DTypeName(dtype) << " on " << n;
        }
      }
    }
  }
}

TEST(SumExchange, MeanOfLargeHalvesDoesNotOverflow) {
  for (const double mean : SumOfType(DType::kF16, 4, [](int) { return 60000.0f; })) {
    EXPECT_EQ(mean, 60000.0);
  }
}

// 1 + 2^-8 is not a bf16; added one by one in bf16 the small terms would be lost.
TEST(SumExchange, RoundsTwoByteSumsOnce) {
  const auto value = [](int rank) { return rank == 0 ? 1.0f : 0x1p-8f; };
  for (const double mean : SumOfType(DType::kBF16, 4, value)) {
    EXPECT_EQ(mean, Bf16ToFloat(FloatToBf16((1.0f + 3 * 0x1p-8f) / 4)));
  }
}

// What rank 1 of 3 says after a flip in bytes it received, while the others stay content.
std::string ErrorAfterFlip(const Compressor& codec, Merge merge, const char* what, size_t at) {
  std::string message;
  RunRanks(3, [&](Communicator& comm) {
    FlippingCommunicator flipping(comm, comm.rank() == 1 ? what : "", at);
    ExchangeRunner runner(flipping);
    const auto means = runner.Run({TestSpec(0, {5}), TestSpec(1, {20})}, codec, merge);
    if (comm.rank() != 1) {
      EXPECT_TRUE(means.ok()) << means.status();
      return;
    }
    EXPECT_EQ(means.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(ExitCode(means.status()), 4);
    message = std::string(means.status().message());
  });
  return message;
}

// A cast codec's fp16 bodies may share a call with the fp16 values of a lossless one.
TEST(SumExchange, MixesSumsAndMeansOfOneType) {
  class Cast : public FakeCodec {
   public:
    Cast() : FakeCodec({.merges = {Merge::kSum}, .sum_dtype = DType::kF16}) {}
    int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override { return 2 * spec.numel(); }
    StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView&, const CodecContext&,
                                  MutableByteSpan) const override {
      return BugError("not needed here");
    }
    Status DecodeAdd(ByteSpan body, float scale, const CodecContext&,
                     std::span<float> out) const override {
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] += scale * HalfToFloat(LoadLE<uint16_t>(body.data() + 2 * i));
      }
      return OkStatus();
    }
  };
  RunRanks(4, [](Communicator& comm) {
    const RawCodec raw;
    const Cast cast;
    const TensorSpec half = TestSpec(0, {5}, DType::kF16), full = TestSpec(1, {6});
    std::vector<uint16_t> send(11, FloatToHalf(40000.0f)), half_mean(5);
    std::fill(send.begin() + 5, send.end(), FloatToHalf(3.0f));
    std::vector<float> full_mean(6);
    Workspace scratch;
    ExchangeTimes times;
    const MutableByteSpan bytes(reinterpret_cast<uint8_t*>(send.data()), 22);
    Segment segments[] = {
        {&raw,
         {.spec = &half, .scratch = &scratch},
         1,
         bytes.first(10),
         {half_mean.data(), DType::kF16, 5}},
        {&cast, {.spec = &full, .scratch = &scratch}, 2, bytes.subspan(10), ViewOf(full_mean)}};
    ASSERT_TRUE(
        FindExchange(Merge::kSum)->Run(segments, bytes, 0, true, {}, comm, scratch, &times).ok());
    for (const uint16_t x : half_mean) EXPECT_EQ(HalfToFloat(x), 40000.0f);
    for (const float x : full_mean) EXPECT_EQ(x, 3.0f);
    EXPECT_EQ(HalfToFloat(send[10]), 12.0f) << "the cast codec's body holds the sum";
  });
}

TEST(GatherExchange, FlippedBitIsDataLossNamingRankAndParameter) {
  // A rank's bytes: header 48, w0 20, header 48, w1 80.
  const RawCodec codec;
  const auto flip = [&](size_t rank, size_t at) {
    return ErrorAfterFlip(codec, Merge::kGather, "gather", rank * 196 + at);
  };
  EXPECT_EQ(flip(2, 195), "from rank 2, parameter w1: frame: checksum mismatch");
  EXPECT_EQ(flip(0, 60), "from rank 0, parameter w0: frame: checksum mismatch");
  EXPECT_EQ(flip(2, 68), "from rank 2, parameter w1: frame: wrong magic number");
  EXPECT_THAT(flip(0, 33), HasSubstr("from rank 0, parameter w0: frame: body of"));
  EXPECT_THAT(flip(1, 16), HasSubstr("from rank 1, parameter w0: frame: checksum mismatch"));
}

// A third in fp32 is off by 2^-25: the sum is formed first, and divided in fp64.
TEST(GatherExchange, AnFp64MeanIsDividedInFp64) {
  RunRanks(3, [](Communicator& comm) {
    const NonzeroCodec codec;
    const TensorSpec spec = TestSpec(2, {7}, DType::kF64);
    std::vector<double> message(7), mean(7, 0.0), expected(7, 0.0);
    for (int64_t i = 0; i < 7; ++i) {
      const size_t at = static_cast<size_t>(i);
      message[at] = TestValue(comm.rank(), 2, i);
      for (int r = 0; r < 3; ++r) expected[at] += double{TestValue(r, 2, i)};
      expected[at] /= 3;
    }
    Workspace scratch;
    ExchangeTimes times;
    const TensorView view{message.data(), DType::kF64, 7};
    Segment segment{&codec,
                    {.spec = &spec, .rank = comm.rank(), .world_size = 3, .scratch = &scratch},
                    1,
                    {},
                    {mean.data(), DType::kF64, 7}};
    std::vector<uint8_t> send(48 + static_cast<size_t>(codec.MaxEncodedBytes(spec, 0)));
    Message m{view, {}, 1.0f};
    const auto size = codec.EncodeAny(0, {}, m, segment.context, MutableByteSpan(send).subspan(48));
    ASSERT_TRUE(size.ok()) << size.status();
    segment.body = MutableByteSpan(send).subspan(48, static_cast<size_t>(*size));
    ASSERT_TRUE(FindExchange(Merge::kGather)
                    ->Run({&segment, 1}, MutableByteSpan(send).first(48 + segment.body.size()), 0,
                          true, {}, comm, scratch, &times)
                    .ok());
    EXPECT_EQ(mean, expected);
  });
}

TEST(GatherExchange, BytesBehindTheLastFrameAreDataLoss) {
  RunRanks(1, [](Communicator& comm) {
    const RawCodec codec;
    const TensorSpec spec = TestSpec(0, {2});
    std::vector<uint8_t> send(48 + 8 + 4);
    std::vector<float> mean(2);
    Workspace scratch;
    ExchangeTimes times;
    Segment segment{&codec, {.spec = &spec, .scratch = &scratch}, 1, {}, ViewOf(mean)};
    segment.body = MutableByteSpan(send).subspan(48, 8);
    const Status status =
        FindExchange(Merge::kGather)->Run({&segment, 1}, send, 0, true, {}, comm, scratch, &times);
    EXPECT_EQ(status.message(), "from rank 0: 4 bytes after the last frame");
  });
}

// The frame is intact here: a body that only its codec can refuse.
TEST(GatherExchange, CodecsOwnComplaintNamesTheRank) {
  class Liar : public NonzeroCodec {
   public:
    StatusOr<int64_t> EncodeRound(int round, ByteSpan reduced, const MessageView& message,
                                  const CodecContext& context,
                                  MutableByteSpan body) const override {
      auto size = NonzeroCodec::EncodeRound(round, reduced, message, context, body);
      if (context.rank == 2) StoreLE(body.data(), uint32_t{1000});
      return size;
    }
  };
  RunRanks(3, [](Communicator& comm) {
    ExchangeRunner runner(comm);
    const auto means = runner.Run({TestSpec(4, {30})}, Liar(), Merge::kGather);
    EXPECT_EQ(means.status().message(), "from rank 2, parameter w4: nonzero: index out of range");
  });
}

TEST(SumExchange, SendsEveryElementTwiceTimesTheOthersShare) {
  RunRanks(4, [](Communicator& comm) {
    ExchangeRunner runner(comm);
    ASSERT_TRUE(runner.Run({TestSpec(0, {400})}, RawCodec(), Merge::kSum).ok());
    EXPECT_EQ(comm.bytes_sent(), 2 * 300 * 4);
  });
}

TEST(ReencodeExchange, CompressesBothHops) {
  RunRanks(4, [](Communicator& comm) {
    ExchangeRunner runner(comm);
    ASSERT_TRUE(runner.Run({TestSpec(0, {400})}, ByteBlockCodec(), Merge::kReencode).ok());
    EXPECT_EQ(comm.bytes_sent(), 2 * 300 * 2);
  });
}

TEST(ReencodeExchange, GivesWhatEncodingTheMeanGives) {
  const ByteBlockCodec codec;
  const TensorSpec spec = TestSpec(6, {50});  // 13 blocks, the last of two elements
  RunRanks(3, [&](Communicator& comm) {
    ExchangeRunner runner(comm);
    const auto means = runner.Run({spec}, codec, Merge::kReencode);
    ASSERT_TRUE(means.ok()) << means.status();
    std::vector<float> expected(50, 0.0f);
    const size_t cuts[] = {0, 16, 32, 50};  // 4, 4 and 5 blocks
    for (int c = 0; c < 3; ++c) {
      std::vector<float> mean(cuts[c + 1] - cuts[c], 0.0f);
      for (int r = 0; r < 3; ++r) {
        const auto decoded = runner.OwnDecoded(spec, codec, r);
        ASSERT_TRUE(decoded.ok());
        for (size_t i = 0; i < mean.size(); ++i) {
          mean[i] += (1.0f / 3.0f) * (*decoded)[cuts[c] + i];
        }
      }
      CodecContext context = runner.Context(spec, comm.rank(), 3);
      context.second_hop = true;
      context.offset = static_cast<int64_t>(cuts[c]);
      std::vector<uint8_t> body(100);
      const auto size = codec.EncodeRound(0, {}, {mean}, context, body);
      ASSERT_TRUE(size.ok());
      ASSERT_TRUE(codec
                      .DecodeAdd(ByteSpan(body).first(static_cast<size_t>(*size)), 1.0f, context,
                                 std::span<float>(expected).subspan(cuts[c], mean.size()))
                      .ok());
    }
    for (size_t i = 0; i < 50; ++i) EXPECT_NEAR((*means)[0][i], expected[i], 1e-6) << i;
  });
}

}  // namespace
}  // namespace tw
