#include <gtest/gtest.h>

#include <vector>

#include "tests/compressors/codec_under_test.h"
#include "tests/core/kernels/sample_data.h"

namespace tw {
namespace {

using Bytes = std::vector<uint8_t>;

// Worked by hand: d = 10, 4 bits an index; 2 and 7 are 0x72; -4 is C0800000, 3 is 40400000.
TEST(Threshold, WritesWhatExceedsLambda) {
  CodecUnderTest threshold("threshold", {10}, {{"lambda", 2.0}});
  std::vector<float> x = {0, 1, -4, 1, 0, 2, -2, 3, 1, 0};
  const Bytes body = threshold.Encode(x);
  EXPECT_EQ(body, (Bytes{2, 0, 0, 0, 0x72, 0, 0, 0x80, 0xC0, 0, 0, 0x40, 0x40}));
  EXPECT_EQ(x, (std::vector<float>{0, 1, 0, 1, 0, 2, -2, 0, 1, 0}));
  EXPECT_EQ(threshold.Decode(body), (std::vector<float>{0, 0, -4, 0, 0, 0, 0, 3, 0, 0}));
}

TEST(Threshold, SendsOnlyACountWhenNothingExceeds) {
  CodecUnderTest threshold("threshold", {10}, {{"lambda", 2.0}});
  std::vector<float> x(10, 2.0f);
  const Bytes body = threshold.Encode(x);
  EXPECT_EQ(body, (Bytes{0, 0, 0, 0}));
  EXPECT_EQ(x, std::vector<float>(10, 2.0f));
  EXPECT_EQ(threshold.Decode(body), std::vector<float>(10, 0.0f));
}

TEST(Threshold, SendsEverythingWhenIndicesDoNotPay) {
  CodecUnderTest threshold("threshold", {2}, {{"lambda", 0.5}});
  std::vector<float> x = {1, 2};  // with indices 4 + 1 + 8 bytes, without 4 + 8
  const Bytes body = threshold.Encode(x);
  EXPECT_EQ(body, (Bytes{0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0x80, 0x3F, 0, 0, 0, 0x40}));
  EXPECT_EQ(x, (std::vector<float>{0, 0}));
  EXPECT_EQ(threshold.Decode(body), (std::vector<float>{1, 2}));
}

// From hardly anything over more than the first guess of room holds to nearly everything.
TEST(Threshold, IsExactAtEveryDensity) {
  const size_t d = 20'000;
  const auto x = RandomFloats(d, 1), g = RandomFloats(d, 2);
  for (const double lambda : {4.0, 2.0, 1.5, 1.0, 0.5, 0.3, 0.01}) {
    CodecUnderTest threshold("threshold", {static_cast<int64_t>(d)}, {{"lambda", lambda}});
    auto buffer = x;
    const Bytes body = threshold.Encode(buffer, g.data(), 0.5f);
    const bool dense = LoadLE<uint32_t>(body.data()) == 0xFFFFFFFFu;
    const auto decoded = threshold.Decode(body);
    for (size_t i = 0; i < d; ++i) {
      const float m = x[i] + 0.5f * g[i];
      const bool sent = dense || std::fabs(m) > lambda;
      ASSERT_EQ(decoded[i], sent ? m : 0.0f) << lambda;
      ASSERT_EQ(buffer[i], sent ? 0.0f : m) << lambda;
    }
    EXPECT_EQ(dense, lambda < 0.5) << lambda;
  }
}

TEST(Threshold, RefusesMalformedBodies) {
  CodecUnderTest threshold("threshold", {10}, {{"lambda", 2.0}});
  std::vector<float> x = {0, 1, -4, 1, 0, 2, -2, 3, 1, 0};
  const Bytes good = threshold.Encode(x);
  for (const auto& [at, value] : std::vector<std::pair<size_t, uint8_t>>{
           {0, 3}, {0, 1}, {3, 1}, {4, 0x77}, {4, 0x27}, {4, 0xA2}}) {
    Bytes bad = good;
    bad[at] = value;
    ExpectDataLoss(threshold, bad);
  }
  ExpectDataLoss(threshold, {});
  ExpectDataLoss(threshold, Bytes{0, 0, 0});
  ExpectDataLoss(threshold, Bytes{0xFF, 0xFF, 0xFF, 0xFF});
}

}  // namespace
}  // namespace tw
