#include <limits>

#include "tests/compressors/codec_properties.h"

namespace tw {
namespace {

ConfigKeys Levels(int64_t levels, int64_t bucket = 0) {
  return {{"levels", levels}, {"bucket", bucket}};
}

TEST(Qsgd, GoldenBytesOfValuesOnTheGrid) {
  // Norm 5 and five levels: 3 and -4 are levels 3 and -4 whatever is drawn. 4 bits, code = level+8.
  CodecUnderTest h("qsgd", {3}, Levels(5));
  std::vector<float> x = {3, -4, 0};
  const auto body = h.Encode(x);
  // The norm is exact; were it rounded it would be rounded up.
  EXPECT_EQ(body, (std::vector<uint8_t>{0x00, 0x00, 0xA0, 0x40, 0x4B, 0x08}));
  EXPECT_EQ(x, (std::vector<float>{0, 0, 0}));
}

TEST(Qsgd, DeclaresItsExactSize) {
  TensorSpec spec;
  spec.shape = {1000000};
  CodecUnderTest h("qsgd", {1000000});
  EXPECT_EQ(h.codec->MaxEncodedBytes(spec, 0), 625004);
  CodecUnderTest bucketed("qsgd", {1000000}, Levels(15, 512));
  EXPECT_EQ(bucketed.codec->MaxEncodedBytes(spec, 0), 625000 + 4 * 1954);
  // 1 + ceil(log2(s + 1)) bits.
  const std::pair<int64_t, int64_t> bits[] = {{1, 2}, {2, 3},  {3, 3},  {4, 4},  {7, 4},
                                              {8, 5}, {15, 5}, {16, 6}, {64, 8}, {127, 8}};
  for (const auto& [levels, expected] : bits) {
    for (int64_t n : {0, 1, 9, 1000}) {
      CodecUnderTest c("qsgd", {n}, Levels(levels));
      auto x = RandomVector(n, 1);
      const int64_t bytes = static_cast<int64_t>(c.Encode(x).size());
      EXPECT_EQ(bytes, n == 0 ? 0 : 4 + (n * expected + 7) / 8) << levels << " " << n;
      EXPECT_EQ(bytes, c.codec->MaxEncodedBytes(c.spec, 0));
    }
  }
}

TEST(Qsgd, LeavesTheResidualAndFusesTheAddition) {
  for (int64_t levels : {1, 2, 10, 15, 127}) {
    for (int64_t n : {1, 5, 128, 3001}) {
      for (int64_t bucket : {0, 64}) {
        CodecUnderTest h("qsgd", {n}, Levels(levels, bucket));
        ExpectResidualRule(h, RandomVector(n, 1), RandomVector(n, 2), -0.25f);
        ExpectResidualRule(h, RandomVector(n, 1, 1e38f), RandomVector(n, 2, 1e38f), 1.0f);
        ExpectResidualRule(h, RandomVector(n, 1, 1e-42f), RandomVector(n, 2, 1e-42f), 1.0f);
      }
    }
  }
}

TEST(Qsgd, ZeroVectorIsNormZero) {
  CodecUnderTest h("qsgd", {20});
  std::vector<float> x(20, 0.0f);
  x[3] = -0.0f;
  const auto body = h.Encode(x);
  EXPECT_EQ(LoadLE<float>(body.data()), 0.0f);
  EXPECT_EQ(h.Decode(body), std::vector<float>(20, 0.0f));
  EXPECT_EQ(x, std::vector<float>(20, 0.0f));
}

TEST(Qsgd, NormBeyondFloatSaturatesAndStaysFinite) {
  const float most = std::numeric_limits<float>::max();
  CodecUnderTest h("qsgd", {8}, Levels(127));
  std::vector<float> x(8, most);
  const auto body = h.Encode(x);
  EXPECT_EQ(LoadLE<float>(body.data()), most);
  EXPECT_EQ(h.Decode(body), std::vector<float>(8, most));
}

TEST(Qsgd, IsUnbiasedWithinItsOmega) {
  for (int64_t levels : {1, 4, 15}) {
    for (int64_t bucket : {0, 64}) {
      CodecUnderTest h("qsgd", {200}, Levels(levels, bucket));
      ExpectUnbiased(h, RandomVector(200, 3), 2000);
    }
  }
}

TEST(Qsgd, RanksAndStepsDrawTheirOwnNumbers) {
  CodecUnderTest h("qsgd", {300}, Levels(1));
  auto body = [&](int rank, uint64_t step) {
    h.context.rank = rank;
    h.context.step = step;
    auto x = RandomVector(300, 1);
    return h.Encode(x);
  };
  EXPECT_EQ(body(0, 1), body(0, 1));
  EXPECT_NE(body(0, 1), body(1, 1));
  EXPECT_NE(body(0, 1), body(0, 2));
}

TEST(Qsgd, RefusesBodiesThatCannotBe) {
  CodecUnderTest h("qsgd", {3}, Levels(5));
  std::vector<float> x = {3, -4, 0};
  auto body = h.Encode(x);
  ExpectDataLoss(h, ByteSpan(body).first(5));
  ExpectDataLoss(h, {});
  auto stray = body;
  stray[5] |= 0x10;
  ExpectDataLoss(h, stray);
  StoreLE(body.data(), std::numeric_limits<float>::infinity());
  ExpectDataLoss(h, body);
  EXPECT_FALSE(TryMakeCodec("qsgd", Levels(128)).ok());
  EXPECT_FALSE(TryMakeCodec("qsgd", Levels(15, 12)).ok());
}

}  // namespace
}  // namespace tw
