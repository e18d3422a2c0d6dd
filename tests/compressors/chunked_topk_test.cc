#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/compressors/codec_properties.h"
#include "tests/compressors/codec_under_test.h"
#include "tests/core/kernels/sample_data.h"

namespace tw {
namespace {

using Bytes = std::vector<uint8_t>;

ConfigKeys Keys(double ratio, int64_t chunk, int64_t bits) {
  return {{"ratio", ratio}, {"chunk", chunk}, {"value_bits", bits}};
}

// Worked by hand: chunks of 8 and 3 elements, 2 and 1 of them kept. Indices 2 and 7 of 3 bits are
// 2 + 7*8 = 0x3A, index 1 of 2 bits is 1. -4 is C0800000, 3 is 40400000, 1 is 3F800000.
TEST(ChunkedTopK, WritesIndicesAndValuesChunkByChunk) {
  CodecUnderTest codec("chunked_topk", {11}, Keys(0.25, 8, 32));
  std::vector<float> x = {0, 1, -4, 1, 0, 2, -2, 3, 0.5f, 1, -1};
  const Bytes body = codec.Encode(x);
  EXPECT_EQ(body, (Bytes{0x3A, 0, 0, 0x80, 0xC0, 0, 0, 0x40, 0x40, 1, 0, 0, 0x80, 0x3F}));
  EXPECT_EQ(x, (std::vector<float>{0, 1, 0, 1, 0, 2, -2, 0, 0.5f, 0, -1}));
  EXPECT_EQ(codec.Decode(body), (std::vector<float>{0, 0, -4, 0, 0, 0, 0, 3, 0, 1, 0}));
}

// a = 2, b = 6, so 2-bit codes stand for 2 and 6: 3 is 2 (code 0), -6 is 6 with a sign (code 3),
// 4 is midway and goes up (code 2), -2 is code 1. Indices 1 2 4 7; codes 0 3 2 1 = 0x6C.
TEST(ChunkedTopK, CodesLieBetweenTheSmallestAndTheLargestMagnitude) {
  CodecUnderTest codec("chunked_topk", {8}, Keys(0.5, 8, 2));
  std::vector<float> x = {1, 3, -6, 0, 4, 1, -1, -2};
  const Bytes body = codec.Encode(x);
  EXPECT_EQ(body, (Bytes{0x11, 0x0F, 0, 0, 0, 0x40, 0, 0, 0xC0, 0x40, 0x6C}));
  EXPECT_EQ(codec.Decode(body), (std::vector<float>{0, 2, -6, 0, 6, 0, 0, -2}));
  EXPECT_EQ(x, (std::vector<float>{1, 1, 0, 0, -2, 1, -1, 0}));
}

TEST(ChunkedTopK, OneChunkWithWholeValuesIsTopK) {
  CodecUnderTest chunked("chunked_topk", {4000}, Keys(0.01, 4096, 32));
  CodecUnderTest plain("topk", {4000}, {{"ratio", 0.01}});
  std::vector<float> x = RandomFloats(4000, 3), y = x;
  EXPECT_EQ(chunked.Decode(chunked.Encode(x)), plain.Decode(plain.Encode(y)));
  EXPECT_EQ(x, y);
}

TEST(ChunkedTopK, BreaksTiesByLowestIndexInEachChunk) {
  CodecUnderTest codec("chunked_topk", {8}, Keys(0.5, 4, 32));
  std::vector<float> x = {1, -2, 2, -2, 3, 3, 3, 3};
  EXPECT_EQ(codec.Decode(codec.Encode(x)), (std::vector<float>{0, -2, 2, 0, 3, 3, 0, 0}));
}

TEST(ChunkedTopK, KeepsItsPromisesAtEveryWidth) {
  for (const int64_t bits : {2, 4, 8, 32}) {
    for (const int64_t n : {1, 5, 64, 100, 257}) {
      SCOPED_TRACE(testing::Message() << bits << " bits, " << n);
      CodecUnderTest codec("chunked_topk", {n}, Keys(0.2, 64, bits));
      ExpectResidualRule(codec, RandomVector(n, 1), RandomVector(n, 2), 0.5f);
      ExpectResidualRule(codec, std::vector<float>(static_cast<size_t>(n), 0.0f),
                         RandomVector(n, 2, 1e-41f), 1.0f);
      const std::vector<float> x = RandomVector(n, 4, 3e38f);
      std::vector<float> left = x;
      for (const float v : codec.Decode(codec.Encode(left))) EXPECT_TRUE(std::isfinite(v));
      for (size_t i = 0; i < x.size(); ++i) EXPECT_LE(std::fabs(left[i]), std::fabs(x[i])) << i;
    }
  }
}

// One large element beside small ones: the worst case that delta is made for.
TEST(ChunkedTopK, ContractsByItsDeltaInTheWorstCase) {
  for (const int64_t bits : {2, 4, 8}) {
    CodecUnderTest codec("chunked_topk", {64}, Keys(1.0, 64, bits));
    const float half = 0.5f / static_cast<float>((1 << (bits - 1)) - 1);
    std::vector<float> x(64, half * 0.999f);
    x[0] = 0;
    x[63] = 1;
    const double before = SquaredNorm(x);
    codec.Encode(x);
    const double delta = codec.codec->Delta(codec.spec);
    EXPECT_LE(SquaredNorm(x), (1 - delta) * before * (1 + 1e-6)) << bits;
    EXPECT_GE(SquaredNorm(x), (1 - delta) * before * 0.99) << bits << ": the bound is reached";
  }
}

TEST(ChunkedTopK, SizeIsThatOfTheFormula) {
  for (const auto& [d, ratio, bits, bytes] : std::vector<std::tuple<int64_t, double, int64_t, int>>{
           {4096 * 100, 0.01, 32, 100 * (62 + 164)},  // 41 of 4096: 12-bit indices
           {4096 * 100, 0.01, 2, 100 * (62 + 8 + 11)},
           {4096 + 10, 0.01, 8, 62 + 8 + 41 + 1 + 9},  // one of the last ten
           {1, 0.01, 4, 0 + 8 + 1}}) {
    CodecUnderTest codec("chunked_topk", {d}, Keys(ratio, 4096, bits));
    EXPECT_EQ(codec.codec->MaxEncodedBytes(codec.spec, 0), bytes) << d;
    std::vector<float> x = RandomFloats(static_cast<size_t>(d), 1);
    EXPECT_EQ(codec.Encode(x).size(), static_cast<size_t>(bytes)) << d;
  }
}

TEST(ChunkedTopK, RefusesMalformedBodies) {
  CodecUnderTest codec("chunked_topk", {8}, Keys(0.5, 8, 2));
  std::vector<float> x = {1, 3, -6, 0, 4, 1, -1, -2};
  const Bytes good = codec.Encode(x);
  const auto with = [&](size_t at, std::vector<uint8_t> bytes) {
    Bytes bad = good;
    std::copy(bytes.begin(), bytes.end(), bad.begin() + static_cast<ptrdiff_t>(at));
    return bad;
  };
  ExpectDataLoss(codec, with(0, {0x09}));              // index 1 twice
  ExpectDataLoss(codec, with(1, {0x1F}));              // a bit in the padding
  ExpectDataLoss(codec, with(5, {0xC0}));              // a = -2
  ExpectDataLoss(codec, with(5, {0x41}));              // a > b
  ExpectDataLoss(codec, with(6, {0, 0, 0x80, 0x7F}));  // b infinite
  ExpectDataLoss(codec, with(6, {0, 0, 0xC0, 0x7F}));  // b not a number
  ExpectDataLoss(codec, Bytes(good.begin(), good.end() - 1));
  ExpectDataLoss(codec, {});
}

TEST(ChunkedTopK, RefusesOtherWidths) {
  for (const int64_t bits : {3, 16, 31}) {
    const auto made = TryMakeCodec("chunked_topk", {{"value_bits", bits}});
    EXPECT_EQ(ExitCode(made.status()), 2) << bits;
  }
}

}  // namespace
}  // namespace tw
