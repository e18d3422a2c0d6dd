// sign and onebit.
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/compressors/codec_under_test.h"
#include "tests/core/kernels/sample_data.h"

namespace tw {
namespace {

using Bytes = std::vector<uint8_t>;

// Worked by hand: sum of magnitudes 18 over 9 elements is 2 (40000000); elements 1, 4 and 8 are
// negative: 0x12, 0x01. -0 counts as positive.
TEST(Sign, WritesMeanMagnitudeAndBits) {
  CodecUnderTest sign("sign", {9});
  std::vector<float> x = {3, -1, 0, 2, -4, -0.0f, 2, 1, -5};
  const Bytes body = sign.Encode(x);
  EXPECT_EQ(body, (Bytes{0, 0, 0, 0x40, 0x12, 0x01}));
  EXPECT_EQ(sign.Decode(body), (std::vector<float>{2, -2, 2, 2, -2, 2, 2, 2, -2}));
  EXPECT_EQ(x, (std::vector<float>{1, 1, -2, 0, -2, -2, 0, -1, -3}));
}

// The rest: (3 + 0 + 2 + 0 + 3) / 5 = 1.6 would not be exact; 8 of 4 elements make 2 (40000000).
// The negatives -1 and -5 have the mean -3 (C0400000).
TEST(OneBit, WritesOneMeanForEachSign) {
  CodecUnderTest onebit("onebit", {6});
  std::vector<float> x = {3, -1, 0, 2, -5, 3};
  const Bytes body = onebit.Encode(x);
  EXPECT_EQ(body, (Bytes{0, 0, 0, 0x40, 0, 0, 0x40, 0xC0, 0x12}));
  EXPECT_EQ(onebit.Decode(body), (std::vector<float>{2, -3, 2, 2, -3, 2}));
  EXPECT_EQ(x, (std::vector<float>{1, 2, -2, 0, -2, 1}));
}

TEST(Sign, ZerosDecodeToZeros) {
  for (const char* name : {"sign", "onebit"}) {
    CodecUnderTest codec(name, {20});
    std::vector<float> x(20, 0.0f);
    EXPECT_EQ(codec.Decode(codec.Encode(x)), std::vector<float>(20, 0.0f)) << name;
    EXPECT_EQ(x, std::vector<float>(20, 0.0f)) << name;
  }
}

TEST(OneBit, OneSignAloneHasNoOtherMean) {
  CodecUnderTest onebit("onebit", {2});
  std::vector<float> x = {-1, -3};
  EXPECT_EQ(onebit.Encode(x), (Bytes{0, 0, 0, 0, 0, 0, 0, 0xC0, 0x03}));
}

TEST(Sign, HugeElementsDoNotOverflowTheMean) {
  CodecUnderTest sign("sign", {100});
  const float huge = std::numeric_limits<float>::max();
  std::vector<float> x(100, -huge);
  EXPECT_EQ(sign.Decode(sign.Encode(x)), std::vector<float>(100, -huge));
}

// 1 - ||x||_1^2 / (d ||x||^2) of the norm is lost, exactly.
TEST(Sign, LosesWhatTheMeanMagnitudeCannotHold) {
  CodecUnderTest sign("sign", {1000});
  auto x = RandomFloats(1000, 1);
  double norm1 = 0, norm2 = 0, residual = 0;
  for (const float v : x) norm1 += std::fabs(v), norm2 += static_cast<double>(v) * v;
  sign.Encode(x);
  for (const float v : x) residual += static_cast<double>(v) * v;
  EXPECT_NEAR(residual / norm2, 1 - norm1 * norm1 / (1000 * norm2), 1e-6);
}

TEST(Sign, RefusesMalformedBodies) {
  CodecUnderTest sign("sign", {9}), onebit("onebit", {9});
  const Bytes good = {0, 0, 0, 0x40, 0x12, 0x01};
  std::vector<float> out(9);
  ASSERT_TRUE(sign.DecodeAdd(good, 1.0f, out).ok());
  Bytes bad = good;
  bad[5] = 0x02;  // beyond the end
  ExpectDataLoss(sign, bad);
  bad = good;
  bad[3] = 0xC0;  // negative scale
  ExpectDataLoss(sign, bad);
  bad[2] = 0xFF, bad[3] = 0x7F;  // NaN
  ExpectDataLoss(sign, bad);
  ExpectDataLoss(sign, {});
  ExpectDataLoss(sign, Bytes(5));
  ExpectDataLoss(sign, Bytes(7));
  ExpectDataLoss(onebit, Bytes(9));
  ExpectDataLoss(onebit, Bytes(11));
  bad = Bytes(10);
  ASSERT_TRUE(onebit.DecodeAdd(bad, 1.0f, out).ok());
  bad[7] = 0x40;  // a positive mean of negatives
  ExpectDataLoss(onebit, bad);
}

}  // namespace
}  // namespace tw
