#include <limits>

#include "tests/compressors/codec_properties.h"

namespace tw {
namespace {

TEST(TernGrad, GoldenBytesOfValuesOnTheGrid) {
  CodecUnderTest h("terngrad", {7});
  std::vector<float> x = {2, -2, 0, 0, 2, -2, 2};
  const auto body = h.Encode(x);
  // trits 2 0 1 1 2 = 2 + 9 + 27 + 162, then 0 2 = 6
  EXPECT_EQ(body, (std::vector<uint8_t>{0x00, 0x00, 0x00, 0x40, 200, 6}));
  EXPECT_EQ(x, std::vector<float>(7, 0.0f));
}

TEST(TernGrad, DeclaresItsExactSize) {
  TensorSpec spec;
  spec.shape = {1000000};
  CodecUnderTest h("terngrad", {1});
  EXPECT_EQ(h.codec->MaxEncodedBytes(spec, 0), 200004);
  for (int64_t n : {0, 1, 4, 5, 6, 1279, 1280, 1281, 4000}) {
    CodecUnderTest c("terngrad", {n});
    auto x = RandomVector(n, 1);
    EXPECT_EQ(static_cast<int64_t>(c.Encode(x).size()), c.codec->MaxEncodedBytes(c.spec, 0));
    EXPECT_EQ(c.codec->MaxEncodedBytes(c.spec, 0), n == 0 ? 0 : 4 + (n + 4) / 5);
  }
}

TEST(TernGrad, LeavesTheResidualAndFusesTheAddition) {
  for (int64_t n : {1, 5, 128, 3001}) {
    CodecUnderTest h("terngrad", {n});
    ExpectResidualRule(h, RandomVector(n, 1), RandomVector(n, 2), -0.25f);
    ExpectResidualRule(h, RandomVector(n, 1, 1e38f), RandomVector(n, 2, 1e38f), 1.0f);
    ExpectResidualRule(h, RandomVector(n, 1, 1e-42f), RandomVector(n, 2, 1e-42f), 1.0f);
  }
}

TEST(TernGrad, ZeroVectorIsScaleZero) {
  CodecUnderTest h("terngrad", {11});
  std::vector<float> x(11, 0.0f);
  const auto body = h.Encode(x);
  EXPECT_EQ(LoadLE<float>(body.data()), 0.0f);
  EXPECT_EQ(h.Decode(body), std::vector<float>(11, 0.0f));
}

TEST(TernGrad, SendsOnlyThreeValues) {
  CodecUnderTest h("terngrad", {1000});
  auto x = RandomVector(1000, 2);
  float s = 0;
  for (float v : x) s = std::max(s, std::abs(v));
  for (float v : h.Decode(h.Encode(x))) EXPECT_TRUE(v == 0.0f || v == s || v == -s) << v;
}

TEST(TernGrad, IsUnbiasedWithinItsOmega) {
  CodecUnderTest h("terngrad", {200});
  ExpectUnbiased(h, RandomVector(200, 3), 2000);
}

TEST(TernGrad, RefusesBodiesThatCannotBe) {
  CodecUnderTest h("terngrad", {7});
  std::vector<float> x = {2, -2, 0, 0, 2, -2, 2};
  const auto body = h.Encode(x);
  ExpectDataLoss(h, ByteSpan(body).first(5));
  auto bad = body;
  bad[4] = 243;
  ExpectDataLoss(h, bad);
  bad = body;
  bad[5] = 9;  // a third trit where there are two
  ExpectDataLoss(h, bad);
  bad = body;
  StoreLE(bad.data(), -2.0f);
  ExpectDataLoss(h, bad);
}

}  // namespace
}  // namespace tw
