// fp16 and bf16.
#include <gtest/gtest.h>

#include <cfloat>
#include <vector>

#include "tests/compressors/codec_under_test.h"
#include "tests/core/kernels/sample_data.h"

namespace tw {
namespace {

using Bytes = std::vector<uint8_t>;

// 1 is 3C00, -2.5 is C100; 1 + 2^-11 lies half way and goes to 3C00.
TEST(Fp16, WritesHalves) {
  CodecUnderTest fp16("fp16", {3});
  std::vector<float> x = {1, -2.5f, 1 + 0x1p-11f};
  EXPECT_EQ(fp16.Encode(x), (Bytes{0x00, 0x3C, 0x00, 0xC1, 0x00, 0x3C}));
  EXPECT_EQ(x, (std::vector<float>{0, 0, 0x1p-11f}));
}

// 1 is 3F80, -2.5 is C020; 1 + 3 * 2^-8 lies half way and goes to 3F82.
TEST(Bf16, WritesBfloats) {
  CodecUnderTest bf16("bf16", {3});
  std::vector<float> x = {1, -2.5f, 1 + 3 * 0x1p-8f};
  EXPECT_EQ(bf16.Encode(x), (Bytes{0x80, 0x3F, 0x20, 0xC0, 0x82, 0x3F}));
  EXPECT_EQ(x, (std::vector<float>{0, 0, -0x1p-8f}));
}

TEST(Fp16, SaturatesAndKeepsTheRest) {
  CodecUnderTest fp16("fp16", {3});
  std::vector<float> x = {1e6f, -1e30f, 65504};
  const auto decoded = fp16.Decode(fp16.Encode(x));
  EXPECT_EQ(decoded, (std::vector<float>{65504, -65504, 65504}));
  EXPECT_EQ(x, (std::vector<float>{1e6f - 65504, -1e30f, 0}));
}

TEST(Bf16, SaturatesInsteadOfOverflowing) {
  CodecUnderTest bf16("bf16", {1});
  std::vector<float> x = {FLT_MAX};
  const auto decoded = bf16.Decode(bf16.Encode(x));
  EXPECT_EQ(decoded[0], 0x1.fep127f);
  EXPECT_EQ(x[0], FLT_MAX - 0x1.fep127f);
}

// The sum of four ranks' bodies of 65504 would overflow if they were not divided by four first.
TEST(Fp16, DividesByTheWorldSizeSoThatSumsFit) {
  CodecUnderTest fp16("fp16", {1});
  fp16.context.world_size = 4;
  std::vector<float> x = {60000};
  const Bytes body = fp16.Encode(x);
  EXPECT_EQ(LoadLE<uint16_t>(body.data()), 0x7353);  // 15000 = 0x1.d4cp13 rounds to 0x1.d4cp13
  std::vector<float> mean = {0};
  ASSERT_TRUE(fp16.DecodeAdd(body, 0.25f, mean).ok());
  EXPECT_EQ(mean[0], 15000);
}

TEST(Fp16, RefusesAnotherSize) {
  CodecUnderTest fp16("fp16", {3});
  for (const size_t size : {0, 5, 7}) ExpectDataLoss(fp16, Bytes(size));
  CodecUnderTest bf16("bf16", {3});
  for (const size_t size : {0, 5, 7}) ExpectDataLoss(bf16, Bytes(size));
}

}  // namespace
}  // namespace tw
