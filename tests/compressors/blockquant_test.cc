#include <limits>

#include "tests/compressors/codec_properties.h"

namespace tw {
namespace {

ConfigKeys Of(int64_t bits, int64_t block, const char* rounding = "nearest") {
  return {{"bits", bits}, {"block", block}, {"rounding", std::string(rounding)}};
}

TEST(BlockQuant, GoldenBytesOfFourBitBlocks) {
  CodecUnderTest h("blockquant", {11}, Of(4, 8));
  // Block 1: s = 7, step 1. Block 2: s = 0.5, step 1/14; ties go to even.
  std::vector<float> x = {7, -7, 0, 1.25f, -2.5f, 3.5f, 0.5f, -0.5f, 0.5f, -0.25f, 0};
  const auto body = h.Encode(x);
  const std::vector<uint8_t> golden = {0x00, 0x00, 0xE0, 0x40, 0x1F, 0x98,
                                       0xC6, 0x88,  // 7.0f; 15,1 8,9 6,12 8,8
                                       0x00, 0x00, 0x00, 0x3F, 0x4F, 0x08};  // 0.5f; 15,4 8
  EXPECT_EQ(body, golden);
  EXPECT_EQ(x[3], 0.25f);
  EXPECT_EQ(x[4], -0.5f);
  EXPECT_EQ(x[5], -0.5f);
  EXPECT_EQ(x[8], 0.0f);
}

TEST(BlockQuant, OneBitIsSignTimesMeanMagnitude) {
  CodecUnderTest h("blockquant", {9}, Of(1, 8));
  std::vector<float> x = {1, -3, 0, -0.0f, 2, -2, 4, -4, 5};
  const auto body = h.Encode(x);
  const std::vector<uint8_t> golden = {0x00, 0x00, 0x00, 0x40, 0x5D, 0x00, 0x00, 0xA0, 0x40, 0x01};
  EXPECT_EQ(body, golden);
  EXPECT_EQ(x, (std::vector<float>{-1, -1, -2, -2, 0, 0, 2, -2, 0}));
}

TEST(BlockQuant, DeclaresItsExactSize) {
  TensorSpec spec;
  spec.shape = {1000000};
  // Worked sizes: 7813 blocks of 128 (the last of 64), 4 bytes of scale each.
  CodecUnderTest four("blockquant", {1000000}, Of(4, 128));
  EXPECT_EQ(four.codec->MaxEncodedBytes(spec, 0), 500000 + 4 * 7813);
  CodecUnderTest wide("blockquant", {1000000}, Of(4, 512));
  EXPECT_EQ(wide.codec->MaxEncodedBytes(spec, 0), 500000 + 4 * 1954);
  for (int64_t bits = 1; bits <= 8; ++bits) {
    for (int64_t n : {0, 1, 7, 8, 127, 128, 129, 1000}) {
      CodecUnderTest h("blockquant", {n}, Of(bits, 128));
      auto x = RandomVector(n, 1);
      EXPECT_EQ(static_cast<int64_t>(h.Encode(x).size()), h.codec->MaxEncodedBytes(h.spec, 0));
      EXPECT_EQ(h.codec->ChunkBytes(n), h.codec->MaxEncodedBytes(h.spec, 0));
    }
  }
}

TEST(BlockQuant, LeavesTheResidualAndFusesTheAddition) {
  for (int64_t bits = 1; bits <= 8; ++bits) {
    for (const char* rounding : {"nearest", "stochastic"}) {
      for (int64_t n : {1, 5, 128, 131, 4000}) {
        CodecUnderTest h("blockquant", {n}, Of(bits, 64, rounding));
        ExpectResidualRule(h, RandomVector(n, 1), RandomVector(n, 2), -0.25f);
        ExpectResidualRule(h, RandomVector(n, 1, 1e38f), RandomVector(n, 2, 1e38f), 1.0f);
        ExpectResidualRule(h, RandomVector(n, 1, 1e-42f), RandomVector(n, 2, 1e-42f), 1.0f);
      }
    }
  }
}

TEST(BlockQuant, ZeroBlocksHaveScaleZeroAndDecodeToZeros) {
  for (int64_t bits = 1; bits <= 8; ++bits) {
    for (const char* rounding : {"nearest", "stochastic"}) {
      CodecUnderTest h("blockquant", {24}, Of(bits, 8, rounding));
      std::vector<float> x(24, 0.0f);
      x[9] = 1.0f;
      x[3] = -0.0f;
      const auto body = h.Encode(x);
      EXPECT_EQ(LoadLE<float>(body.data()), 0.0f);
      const auto decoded = h.Decode(body);
      for (int i : {0, 3, 7, 16, 23}) {
        EXPECT_EQ(decoded[i], 0.0f);
        EXPECT_EQ(x[i], 0.0f);
      }
    }
  }
}

TEST(BlockQuant, TheSmallestDenormalAndTheLargestFloatSurvive) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  const float most = std::numeric_limits<float>::max();
  for (int64_t bits = 2; bits <= 8; ++bits) {
    CodecUnderTest h("blockquant", {16}, Of(bits, 8));
    std::vector<float> x(16, 0.0f);
    x[0] = tiny;
    x[1] = -tiny;
    x[8] = most;
    x[9] = -most;
    const auto decoded = h.Decode(h.Encode(x));
    EXPECT_EQ(decoded[0], tiny);
    EXPECT_EQ(decoded[1], -tiny);
    EXPECT_EQ(decoded[8], most);
    EXPECT_EQ(decoded[9], -most);
    for (float r : x) EXPECT_EQ(r, 0.0f);
  }
}

TEST(BlockQuant, NearestErrorIsAtMostHalfAStepAndNeverMoreThanTheValue) {
  for (int64_t bits = 2; bits <= 8; ++bits) {
    CodecUnderTest h("blockquant", {128}, Of(bits, 128));
    const auto message = RandomVector(128, bits);
    float s = 0;
    for (float v : message) s = std::max(s, std::abs(v));
    auto x = message;
    h.Encode(x);
    const float half_step = s / static_cast<float>((1 << (bits - 1)) - 1) / 2;
    for (int i = 0; i < 128; ++i) {
      EXPECT_LE(std::abs(x[i]), half_step * 1.00001f);
      EXPECT_LE(std::abs(x[i]), std::abs(message[i]) * 1.00001f);
    }
  }
}

TEST(BlockQuant, ContractsAsDeclaredAndTheBoundIsTight) {
  for (int64_t bits = 1; bits <= 8; ++bits) {
    CodecUnderTest h("blockquant", {320}, Of(bits, 32));
    const double delta = h.codec->Delta(h.spec);
    EXPECT_GT(delta, 0.0);
    for (uint64_t seed = 0; seed < 20; ++seed) {
      auto x = RandomVector(320, seed);
      const double before = SquaredNorm(x);
      h.Encode(x);
      EXPECT_LE(SquaredNorm(x), (1 - delta) * before * (1 + 1e-6));
    }
    if (bits == 1) continue;
    // The worst block: one large value, the others just below half a step.
    const double levels = (1 << (bits - 1)) - 1;
    std::vector<float> worst(320, static_cast<float>(0.49999 / levels));
    for (int i = 0; i < 320; i += 32) worst[i] = 1.0f;
    const double before = SquaredNorm(worst);
    h.Encode(worst);
    EXPECT_NEAR(SquaredNorm(worst) / before, 1 - delta, 1e-3);
  }
}

TEST(BlockQuant, StochasticIsUnbiasedWithinItsOmega) {
  for (int64_t bits : {1, 2, 4, 8}) {
    CodecUnderTest h("blockquant", {200}, Of(bits, 32, "stochastic"));
    EXPECT_TRUE(h.codec->traits().unbiased);
    ExpectUnbiased(h, RandomVector(200, 3), 2000);
  }
  CodecUnderTest nearest("blockquant", {200}, Of(4, 32));
  EXPECT_FALSE(nearest.codec->traits().unbiased);
  EXPECT_EQ(nearest.codec->Omega(nearest.spec), std::numeric_limits<double>::infinity());
}

TEST(BlockQuant, ABodyOfAChunkIsASliceOfTheWholeBody) {
  for (const char* rounding : {"nearest", "stochastic"}) {
    for (bool second_hop : {false, true}) {
      CodecUnderTest h("blockquant", {100}, Of(4, 16, rounding));
      h.context.second_hop = second_hop;
      const auto message = RandomVector(100, 5);
      auto whole = message;
      const auto body = h.Encode(whole);
      EXPECT_EQ(h.codec->BlockElements(), 16);
      for (int64_t cut : {16, 48, 96}) {
        std::vector<float> head(message.begin(), message.begin() + cut);
        std::vector<float> tail(message.begin() + cut, message.end());
        h.context.offset = 0;
        auto joined = h.Encode(head);
        EXPECT_EQ(static_cast<int64_t>(joined.size()), h.codec->ChunkBytes(cut));
        h.context.offset = cut;
        const auto rest = h.Encode(tail);
        h.context.offset = 0;
        joined.insert(joined.end(), rest.begin(), rest.end());
        EXPECT_EQ(joined, body) << rounding << " cut at " << cut;
        head.insert(head.end(), tail.begin(), tail.end());
        EXPECT_EQ(head, whole);
      }
    }
  }
}

TEST(BlockQuant, SecondHopDoesNotDependOnTheOwnerButFirstHopDoes) {
  const auto message = RandomVector(256, 6);
  auto body = [&](int rank, bool second_hop) {
    CodecUnderTest h("blockquant", {256}, Of(2, 128, "stochastic"));
    h.context.rank = rank;
    h.context.second_hop = second_hop;
    auto x = message;
    return h.Encode(x);
  };
  EXPECT_EQ(body(0, true), body(3, true));
  EXPECT_NE(body(0, false), body(3, false));
  EXPECT_EQ(body(2, false), body(2, false));
  EXPECT_NE(body(0, false), body(0, true));
}

TEST(BlockQuant, RefusesBodiesThatCannotBe) {
  CodecUnderTest h("blockquant", {20}, Of(3, 8));
  auto x = RandomVector(20, 7);
  const auto body = h.Encode(x);
  ExpectDataLoss(h, ByteSpan(body).first(body.size() - 1));
  ExpectDataLoss(h, {});
  h.spec.shape = {22};
  ExpectDataLoss(h, body);
  h.spec.shape = {20};
  auto longer = body;
  longer.push_back(0);
  ExpectDataLoss(h, longer);
  for (float scale :
       {-1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    auto bad = body;
    StoreLE(bad.data() + 2 * h.codec->ChunkBytes(8), scale);  // the last block
    ExpectDataLoss(h, bad);
  }
  auto stray = body;
  stray.back() |= 0x10;  // four codes of three bits leave four bits of the last byte unused
  ExpectDataLoss(h, stray);
}

TEST(BlockQuant, EmptyMessageHasAnEmptyBody) {
  CodecUnderTest h("blockquant", {0}, Of(4, 128));
  std::vector<float> x;
  EXPECT_TRUE(h.Encode(x).empty());
  EXPECT_TRUE(h.Decode({}).empty());
}

TEST(BlockQuant, RefusesABlockThatIsNotAMultipleOfEight) {
  EXPECT_FALSE(TryMakeCodec("blockquant", Of(4, 100)).ok());
  EXPECT_FALSE(TryMakeCodec("blockquant", Of(9, 128)).ok());
  EXPECT_FALSE(TryMakeCodec("blockquant", Of(4, 128, "up")).ok());
}

}  // namespace
}  // namespace tw
