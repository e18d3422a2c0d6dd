#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/compressors/codec_under_test.h"
#include "tests/core/kernels/sample_data.h"

namespace tw {
namespace {

using Bytes = std::vector<uint8_t>;

TEST(RandK, SendsOnlyTheValues) {
  CodecUnderTest randk("randk", {10'000});
  EXPECT_EQ(randk.codec->MaxEncodedBytes(randk.spec, 0), 400);
  const std::vector<float> x = RandomFloats(10'000, 1);
  std::vector<float> buffer = x;
  const Bytes body = randk.Encode(buffer);
  ASSERT_EQ(body.size(), 400u);
  size_t at = 0;
  const auto decoded = randk.Decode(body);
  for (size_t i = 0; i < x.size(); ++i) {
    if (decoded[i] == 0) {
      EXPECT_EQ(buffer[i], x[i]);
      continue;
    }
    EXPECT_EQ(decoded[i], x[i]);
    EXPECT_EQ(LoadLE<float>(body.data() + 4 * at++), x[i]);
    EXPECT_EQ(buffer[i], 0);
  }
  EXPECT_EQ(at, 100u);
}

TEST(RandK, AllRanksDrawTheSameIndicesSoThatBodiesAddUp) {
  CodecUnderTest a("randk", {1000}, {{"ratio", 0.1}}), b("randk", {1000}, {{"ratio", 0.1}});
  b.context.rank = 3;
  const auto x = RandomFloats(1000, 1), y = RandomFloats(1000, 2);
  auto buffer_x = x, buffer_y = y;
  const Bytes body_x = a.Encode(buffer_x), body_y = b.Encode(buffer_y);
  Bytes sum(body_x.size());
  for (size_t i = 0; i < sum.size(); i += 4) {
    StoreLE(sum.data() + i, LoadLE<float>(&body_x[i]) + LoadLE<float>(&body_y[i]));
  }
  const auto decoded = a.Decode(sum);
  size_t sent = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (decoded[i] == 0) continue;
    ++sent;
    EXPECT_EQ(decoded[i], x[i] + y[i]);
  }
  EXPECT_EQ(sent, 100u);
}

// The mean of 16 ranks' decoded messages has 1/16 of one message's variance, (d/k - 1) / 16, where
// each rank draws its own indices.
TEST(RandK, OwnIndicesAverageOut) {
  const size_t d = 400;
  CodecUnderTest own(
      "randk", {400},
      {{"ratio", 0.1}, {"mode", std::string("unbiased")}, {"indices", std::string("own")}});
  EXPECT_EQ(own.codec->traits().merges, std::vector<Merge>{Merge::kGather});
  EXPECT_FALSE(own.codec->traits().exact_sum);
  const std::vector<float> ones(d, 1.0f);
  double squares = 0;
  for (uint64_t step = 0; step < 20; ++step) {
    own.context.step = step;
    std::vector<float> mean(d);
    for (int rank = 0; rank < 16; ++rank) {
      own.context.rank = rank;
      auto buffer = ones;
      const Bytes body = own.Encode(buffer);
      EXPECT_EQ(body.size(), 160u);
      TW_CHECK_OK(own.DecodeAdd(body, 1.0f / 16, mean));
    }
    for (const float m : mean) squares += (m - 1) * (m - 1) / (20.0 * d);
  }
  EXPECT_NEAR(squares, 9.0 / 16, 0.05);
}

TEST(RandK, DrawsAnewEveryStepAndParameter) {
  CodecUnderTest randk("randk", {1000}, {{"ratio", 0.1}});
  const std::vector<float> ones(1000, 1.0f);
  auto buffer = ones;
  const auto first = randk.Decode(randk.Encode(buffer));
  randk.context.step += 1;
  buffer = ones;
  EXPECT_NE(randk.Decode(randk.Encode(buffer)), first);
  randk.context.step -= 1;
  randk.spec.id += 1;
  buffer = ones;
  EXPECT_NE(randk.Decode(randk.Encode(buffer)), first);
}

TEST(RandK, UnbiasedModeScalesByTheInverseFraction) {
  CodecUnderTest randk("randk", {8}, {{"ratio", 0.25}, {"mode", std::string("unbiased")}});
  EXPECT_TRUE(randk.codec->traits().unbiased);
  EXPECT_DOUBLE_EQ(randk.codec->Omega(randk.spec), 3.0);
  std::vector<float> x(8, 1.0f);
  const auto decoded = randk.Decode(randk.Encode(x));
  int fours = 0;
  for (size_t i = 0; i < 8; ++i) {
    fours += decoded[i] == 4;
    EXPECT_TRUE(decoded[i] == 4 || decoded[i] == 0);
    EXPECT_EQ(x[i], 1 - decoded[i]);
  }
  EXPECT_EQ(fours, 2);
}

TEST(RandK, ContractiveModeContractsByTheFraction) {
  CodecUnderTest randk("randk", {8}, {{"ratio", 0.25}});
  EXPECT_FALSE(randk.codec->traits().unbiased);
  EXPECT_DOUBLE_EQ(randk.codec->Delta(randk.spec), 0.25);
  EXPECT_TRUE(std::isinf(randk.codec->Omega(randk.spec)));
}

TEST(RandK, RatioOneIsTheIdentity) {
  for (const char* mode : {"contractive", "unbiased"}) {
    CodecUnderTest randk("randk", {129}, {{"ratio", 1.0}, {"mode", std::string(mode)}});
    const auto x = AwkwardFloats(129, 3);
    auto buffer = x;
    EXPECT_EQ(randk.Decode(randk.Encode(buffer)), x);
    EXPECT_EQ(buffer, std::vector<float>(129, 0.0f));
  }
}

TEST(RandK, RefusesAnotherSize) {
  CodecUnderTest randk("randk", {100});
  for (const size_t size : {0, 3, 5, 8}) ExpectDataLoss(randk, Bytes(size));
}

}  // namespace
}  // namespace tw
