#include <gtest/gtest.h>

#include <cmath>

#include "tests/comm/exchange_runner.h"
#include "tests/comm/thread_group.h"
#include "tests/compressors/codec_under_test.h"
#include "tests/core/kernels/sample_data.h"

namespace tw {
namespace {

using Bytes = std::vector<uint8_t>;

double Error2(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

// One rank has 127 levels: what lies on them is not moved by the random rounding.
TEST(IntSum, GoldenBytes) {
  CodecUnderTest codec("intsum", {3});
  std::vector<float> x = {127, -64, 0};
  Message message{ViewOf(x), {}, 1.0f};
  Bytes scales(4), codes(3);
  ASSERT_EQ(*codec.codec->EncodeAny(0, {}, message, codec.context, scales), 4);
  EXPECT_EQ(scales, (Bytes{0x00, 0x00, 0xFE, 0x42}));
  ASSERT_EQ(*codec.codec->EncodeAny(1, scales, message, codec.context, codes), 3);
  EXPECT_EQ(codes, (Bytes{0x7F, 0xC0, 0x00}));
  EXPECT_EQ(x, (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(codec.Decode(codes), (std::vector<float>{127, -64, 0}));
}

// The rotation of {1, 0, 0} padded to four elements is +-1/2 everywhere: all codes are full.
TEST(IntSum, ARotatedTailIsPaddedToAPowerOfTwo) {
  CodecUnderTest codec("intsum", {3}, {{"rotate", true}});
  EXPECT_EQ(codec.codec->MaxEncodedBytes(codec.spec, 1), 4);
  std::vector<float> x = {1, 0, 0};
  for (const uint8_t code : codec.Encode(x)) EXPECT_TRUE(code == 127 || code == 129) << int{code};
  EXPECT_LT(Error2(x, {0, 0, 0}), 1e-12);
}

// Two ranks share the scale 63 and have 63 levels each.
TEST(IntSum, SumsOfLevelsAreExact) {
  RunRanks(2, [](Communicator& comm) {
    ExchangeRunner runner(comm);
    auto made = Registry<Compressor>::Get().Find("intsum")->make(ConfigSection{});
    TW_CHECK_OK(made);
    const Compressor& codec = **made;
    const TensorSpec spec = TestSpec(0, {2});
    StateBag bag;
    StateScope scope(&bag, "codec/w0/");
    CodecContext context = runner.Context(spec, comm.rank(), 2);
    context.state = &scope;
    std::vector<float> x =
        comm.rank() == 0 ? std::vector<float>{63, 1} : std::vector<float>{-21, 2};
    std::vector<float> mean(2, 0.0f);
    Workspace scratch;
    ExchangeTimes times;
    Bytes scales(4), codes(2);
    Message message{ViewOf(x), {}, 1.0f};
    Segment segment{&codec, context, 15, scales, ViewOf(mean)};
    const Exchange& sum = *FindExchange(Merge::kSum);
    ASSERT_TRUE(codec.EncodeAny(0, {}, message, context, scales).ok());
    ASSERT_TRUE(
        sum.Run({&segment, 1}, scales, 0, false, {1, 0, "test"}, comm, scratch, &times).ok());
    EXPECT_EQ(LoadLE<float>(scales.data()), 63.0f);
    ASSERT_TRUE(codec.EncodeAny(1, scales, message, context, codes).ok());
    segment.body = codes;
    ASSERT_TRUE(sum.Run({&segment, 1}, codes, 1, true, {1, 0, "test"}, comm, scratch, &times).ok());
    EXPECT_EQ(mean, (std::vector<float>{21, 1.5}));
    EXPECT_EQ(x, (std::vector<float>{0, 0}));
  });
}

TEST(IntSum, IsRightOnTheAverage) {
  for (const bool rotate : {false, true}) {
    CodecUnderTest codec("intsum", {100}, {{"rotate", rotate}, {"block", int64_t{64}}});
    const std::vector<float> x = RandomFloats(100, 3);
    std::vector<float> mean(100, 0.0f);
    constexpr int kDraws = 4000;
    double once = 0;
    for (int draw = 0; draw < kDraws; ++draw) {
      codec.context.step = static_cast<uint64_t>(draw);
      std::vector<float> buffer = x;
      const auto decoded = codec.Decode(codec.Encode(buffer));
      once += Error2(decoded, x) / kDraws;
      for (size_t i = 0; i < x.size(); ++i) mean[i] += decoded[i] / kDraws;
    }
    EXPECT_GT(once, 0);
    EXPECT_LT(Error2(mean, x), 4 * once / kDraws + 1e-10) << rotate;
  }
}

// One large element makes the others' levels coarse, unless it is spread over its block first.
TEST(IntSum, RotationHelpsWhereFewElementsAreLarge) {
  std::vector<float> x = RandomFloats(4096, 5);
  for (size_t i = 0; i < x.size(); i += 512) x[i] = 300;
  double error[2];
  for (const bool rotate : {false, true}) {
    CodecUnderTest codec("intsum", {4096}, {{"rotate", rotate}});
    std::vector<float> residual = x;
    codec.Encode(residual);
    error[rotate] = Error2(residual, std::vector<float>(4096, 0.0f));
  }
  EXPECT_LT(error[1], error[0] / 10);
}

TEST(IntSum, RefusesMoreRanksThanItsSumsHold) {
  CodecUnderTest codec("intsum", {8});
  codec.context.world_size = 128;
  std::vector<float> x(8, 1.0f);
  Message message{ViewOf(x), {}, 1.0f};
  Bytes scales(4), codes(8);
  ASSERT_TRUE(codec.codec->EncodeAny(0, {}, message, codec.context, scales).ok());
  const auto refused = codec.codec->EncodeAny(1, scales, message, codec.context, codes);
  EXPECT_EQ(ExitCode(refused.status()), 2);
}

TEST(IntSum, RefusesScalesThatAreNoNumbers) {
  CodecUnderTest codec("intsum", {8});
  std::vector<float> x(8, 1.0f);
  Message message{ViewOf(x), {}, 1.0f};
  Bytes scales(4), codes(8);
  ASSERT_TRUE(codec.codec->EncodeAny(0, {}, message, codec.context, scales).ok());
  for (const float bad : {-1.0f, INFINITY, NAN}) {
    StoreLE(scales.data(), bad);
    EXPECT_TRUE(absl::IsDataLoss(
        codec.codec->EncodeAny(1, scales, message, codec.context, codes).status()));
  }
}

}  // namespace
}  // namespace tw
