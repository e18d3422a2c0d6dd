#include <cmath>

#include "core/base/bytes.h"
#include "tests/compressors/codec_properties.h"

namespace tw {
namespace {

using Bytes = std::vector<uint8_t>;

ConfigKeys Rank(int64_t rank) { return {{"rank", rank}}; }

TEST(UnbiasedLowRank, SendsOneFactorOnly) {
  CodecUnderTest h("unbiased_lowrank", {1000, 500});
  EXPECT_EQ(h.codec->MaxEncodedBytes(h.spec, 0), 4 * 4 * 1000);
  EXPECT_DOUBLE_EQ(h.codec->Omega(h.spec), 500.0 / 4 - 1);
  h.spec.shape = {64, 3, 3, 3};  // a convolution is 64 x 27
  EXPECT_EQ(h.codec->MaxEncodedBytes(h.spec, 0), 4 * 4 * 64);
}

TEST(UnbiasedLowRank, IsUnbiasedWithTheVarianceItStates) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{6, 9}, {9, 6}, {5, 4, 3}}) {
    CodecUnderTest h("unbiased_lowrank", shape, Rank(2));
    const auto x = RandomVector(h.spec.numel(), 3);
    ExpectUnbiased(h, x, 20'000);
    // Exactly n/r - 1 in expectation, not only at most.
    double variance = 0;
    constexpr int kDraws = 2000;
    for (int t = 0; t < kDraws; ++t) {
      h.context.step = static_cast<uint64_t>(t);
      auto message = x;
      h.Encode(message);
      variance += SquaredNorm(message) / kDraws;
    }
    EXPECT_NEAR(variance / (h.codec->Omega(h.spec) * SquaredNorm(x)), 1, 0.1);
  }
}

// P U^T = (n/r) M Pi with Pi a projection: of rank r, and twice is n/r times once.
TEST(UnbiasedLowRank, DecodesToAScaledProjection) {
  CodecUnderTest h("unbiased_lowrank", {7, 12}, Rank(3));
  auto message = RandomVector(7 * 12, 1);
  const auto once = h.Decode(h.Encode(message));
  auto again = once;
  const auto twice = h.Decode(h.Encode(again));
  for (size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(twice[i], 4 * once[i], 1e-4);
}

TEST(UnbiasedLowRank, AllRanksDrawTheSameDirectionsSoThatBodiesAddUp) {
  CodecUnderTest a("unbiased_lowrank", {8, 10}, Rank(2)), b("unbiased_lowrank", {8, 10}, Rank(2));
  b.context.rank = 3;
  const auto x = RandomVector(80, 1), y = RandomVector(80, 2);
  auto message_x = x, message_y = y, message = x;
  for (size_t i = 0; i < message.size(); ++i) message[i] += y[i];
  const Bytes body_x = a.Encode(message_x), body_y = b.Encode(message_y);
  Bytes sum(body_x.size());
  for (size_t i = 0; i < sum.size(); i += 4) {
    StoreLE(sum.data() + i, LoadLE<float>(&body_x[i]) + LoadLE<float>(&body_y[i]));
  }
  const auto decoded = a.Decode(sum), expected = b.Decode(b.Encode(message));
  for (size_t i = 0; i < decoded.size(); ++i) EXPECT_NEAR(decoded[i], expected[i], 1e-5);
}

TEST(UnbiasedLowRank, ARankOfAllColumnsIsExact) {
  CodecUnderTest h("unbiased_lowrank", {9, 4}, Rank(4));
  EXPECT_EQ(h.codec->Omega(h.spec), 0);
  const auto x = RandomVector(36, 5);
  auto message = x;
  const auto decoded = h.Decode(h.Encode(message));
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(decoded[i], x[i], 1e-5);
}

TEST(UnbiasedLowRank, RefusesAnotherSize) {
  CodecUnderTest h("unbiased_lowrank", {8, 10}, Rank(2));
  for (const size_t size : {0, 60, 63, 65, 128}) ExpectDataLoss(h, Bytes(size));
}

}  // namespace
}  // namespace tw
