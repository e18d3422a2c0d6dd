#include "core/kernels/shared_scale.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/core/kernels/sample_data.h"

namespace tw::kernels {
namespace {

TEST(SharedScale, RoundingIsThatOfTheReferenceBitForBit) {
  for (const size_t n : {0, 1, 7, 16, 33, 1000}) {
    for (const float size : {1.0f, 1e-38f, 1e37f, 1e-42f}) {
      const std::vector<float> x = RandomFloats(n, n, size);
      const float scale = LargestMagnitude(x);
      for (const int levels : {1, 31, 127, 8191}) {
        for (const uint64_t first : {uint64_t{0}, (uint64_t{1} << 32) - 5}) {
          std::vector<int16_t> codes(n), expected(n);
          RoundToLevels(x, scale, levels, 99, first, codes);
          RoundToLevelsReference(x, scale, levels, 99, first, expected);
          EXPECT_EQ(codes, expected);
          for (size_t i = 0; i < n; ++i) {
            EXPECT_LE(std::fabs(codes[i] - double{x[i]} / scale * levels), 1.01);
          }
        }
      }
    }
  }
}

TEST(SharedScale, NoScaleGivesZeros) {
  const std::vector<float> x(20, 0.0f);
  std::vector<int16_t> codes(20, 5);
  RoundToLevels(x, 0.0f, 127, 1, 0, codes);
  EXPECT_EQ(codes, std::vector<int16_t>(20, 0));
}

TEST(SharedScale, LargestMagnitudeOfAnyLength) {
  EXPECT_EQ(LargestMagnitude({}), 0.0f);
  for (const size_t n : {1, 2, 15, 64, 101}) {
    for (size_t at = 0; at < n; ++at) {
      std::vector<float> x(n, 0.5f);
      x[at] = -3;
      EXPECT_EQ(LargestMagnitude(x), 3.0f);
    }
  }
}

TEST(SharedScale, RotationIsTheHadamardMatrixWithSigns) {
  for (size_t n = 1; n <= 1024; n *= 2) {
    const std::vector<float> x = RandomFloats(n, 4);
    std::vector<float> unit(n), rotated = x, expected = x, signs(n, 1.0f);
    // The signs are what a rotation of no more than one element leaves.
    for (size_t i = 0; i < n; ++i) Rotate({&signs[i], 1}, 7, i);
    for (size_t i = 0; i < n; ++i) expected[i] *= signs[i];
    HadamardReference(expected);
    Rotate(rotated, 7, 0);
    const double root = std::sqrt(static_cast<double>(n));
    for (size_t i = 0; i < n; ++i) ASSERT_NEAR(rotated[i], expected[i] / root, 1e-5) << n;
    RotateBack(rotated, 7, 0);
    for (size_t i = 0; i < n; ++i) ASSERT_NEAR(rotated[i], x[i], 1e-5) << n;
  }
}

TEST(SharedScale, RotationSpreadsASpike) {
  std::vector<float> x(256, 0.0f);
  x[17] = 16;
  Rotate(x, 3, 0);
  for (const float y : x) EXPECT_EQ(std::fabs(y), 1.0f);
}

TEST(SharedScale, WholeMessagesGoBlockByBlock) {
  for (const size_t n : {0, 5, 8, 1000, 4096 + 32}) {
    const int64_t block = 512;
    const std::vector<float> x = RandomFloats(n, n);
    std::vector<float> scales((n + 511) / 512), values(n), rotated = x;
    std::vector<int8_t> codes(n);
    const int levels = 31;
    LargestOfBlocks(x, block, scales);
    RoundToCodes(x, block, scales, levels, 6, 70, codes);
    ValuesOfCodes(codes, block, scales, levels, values);
    for (size_t at = 0; at < n; at += 512) {
      const std::span<const float> part = std::span(x).subspan(at, std::min<size_t>(512, n - at));
      const float scale = LargestMagnitude(part);
      EXPECT_EQ(scales[at / 512], scale);
      std::vector<int16_t> wide(part.size());
      RoundToLevels(part, scale, levels, 6, 70 + at, wide);
      for (size_t i = 0; i < part.size(); ++i) {
        EXPECT_EQ(codes[at + i], wide[i]);
        EXPECT_EQ(values[at + i], LevelStep(scale, levels) * static_cast<float>(wide[i]));
      }
    }
    if (n % 512 != 0 && n % 512 != 8 && n % 512 != 32) continue;  // no power of two
    RotateBlocks(rotated, block, 9, 70);
    std::vector<float> expected = x;
    for (size_t at = 0; at < n; at += 512) {
      Rotate(std::span(expected).subspan(at, std::min<size_t>(512, n - at)), 9, 70 + at);
    }
    EXPECT_EQ(rotated, expected);
    RotateBlocksBack(rotated, block, 9, 70);
    for (size_t i = 0; i < n; ++i) EXPECT_NEAR(rotated[i], x[i], 1e-5);
  }
}

}  // namespace
}  // namespace tw::kernels
