#include <cmath>
#include <limits>

#include "tests/compressors/codec_properties.h"

namespace tw {
namespace {

TEST(Natural, GoldenBytesOfPowersOfTwo) {
  CodecUnderTest h("natural", {9});
  std::vector<float> x = {1, -2, 0.5f, 0, -0.0f, 0x1p127f, -0x1p-126f, 1024, -1};
  const auto body = h.Encode(x);
  EXPECT_EQ(body, (std::vector<uint8_t>{127, 128, 126, 0, 0, 254, 1, 137, 127,  // exponents
                                        0x52, 0x01}));  // negative: 1, 4, 6; 8
  EXPECT_EQ(x, std::vector<float>(9, 0.0f));
}

TEST(Natural, DeclaresItsExactSize) {
  TensorSpec spec;
  spec.shape = {1000000};
  CodecUnderTest h("natural", {1});
  EXPECT_EQ(h.codec->MaxEncodedBytes(spec, 0), 1125000);
  for (int64_t n : {0, 1, 7, 8, 9, 1023, 1024, 1025, 4000}) {
    CodecUnderTest c("natural", {n});
    auto x = RandomVector(n, 1);
    EXPECT_EQ(static_cast<int64_t>(c.Encode(x).size()), (9 * n + 7) / 8);
    EXPECT_EQ(c.codec->MaxEncodedBytes(c.spec, 0), (9 * n + 7) / 8);
  }
}

TEST(Natural, LeavesTheResidualAndFusesTheAddition) {
  for (int64_t n : {1, 5, 128, 3001}) {
    CodecUnderTest h("natural", {n});
    ExpectResidualRule(h, RandomVector(n, 1), RandomVector(n, 2), -0.25f);
    ExpectResidualRule(h, RandomVector(n, 1, 1e38f), RandomVector(n, 2, 1e38f), 1.0f);
    ExpectResidualRule(h, RandomVector(n, 1, 1e-42f), RandomVector(n, 2, 1e-42f), 1.0f);
  }
}

TEST(Natural, RoundsToANeighbouringPowerOfTwo) {
  CodecUnderTest h("natural", {2000});
  auto x = RandomVector(2000, 5);
  const auto message = x;
  const auto decoded = h.Decode(h.Encode(x));
  for (int i = 0; i < 2000; ++i) {
    int exponent;
    EXPECT_EQ(std::abs(std::frexp(decoded[i], &exponent)), 0.5f);
    EXPECT_GT(std::abs(decoded[i]), std::abs(message[i]) / 2);
    EXPECT_LT(std::abs(decoded[i]), std::abs(message[i]) * 2);
    EXPECT_EQ(std::signbit(decoded[i]), std::signbit(message[i]));
  }
}

TEST(Natural, SaturatesAtTheLargestPowerOfTwo) {
  CodecUnderTest h("natural", {100});
  std::vector<float> x(100, std::numeric_limits<float>::max());
  EXPECT_EQ(h.Decode(h.Encode(x)), std::vector<float>(100, 0x1p127f));
}

TEST(Natural, DenormalsGoToZeroOrTheSmallestNormalWithTheRightMean) {
  CodecUnderTest h("natural", {40000});
  std::vector<float> x(40000, -0x1p-128f);  // a quarter of the way
  int up = 0;
  for (float v : h.Decode(h.Encode(x))) {
    EXPECT_TRUE(v == 0.0f || v == -0x1p-126f);
    up += v != 0.0f;
  }
  EXPECT_NEAR(up, 10000, 5 * std::sqrt(40000 * 0.25 * 0.75));
}

TEST(Natural, IsUnbiasedWithinItsOmega) {
  CodecUnderTest h("natural", {200});
  ExpectUnbiased(h, RandomVector(200, 3), 2000);
  // The variance (x-1)(2-x)/x^2 is largest at 4/3, where it is 1/8.
  ExpectUnbiased(h, std::vector<float>(200, 4.0f / 3.0f), 2000);
}

TEST(Natural, RefusesBodiesThatCannotBe) {
  CodecUnderTest h("natural", {9});
  auto x = RandomVector(9, 1);
  const auto body = h.Encode(x);
  ExpectDataLoss(h, ByteSpan(body).first(10));
  ExpectDataLoss(h, {});
  auto bad = body;
  bad[8] = 255;
  ExpectDataLoss(h, bad);
  bad = body;
  bad[10] |= 2;
  ExpectDataLoss(h, bad);
}

}  // namespace
}  // namespace tw
