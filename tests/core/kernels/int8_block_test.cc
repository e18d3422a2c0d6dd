#include "core/kernels/int8_block.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/core/kernels/simd_paths.h"

namespace tw::kernels {
namespace {

TEST(Int8Block, EveryTargetRoundsTheSameWayAndByHalfAStepAtMost) {
  for (const int64_t rows : {0, 1, 3}) {
    for (const int64_t cols : {1, 127, 128, 129, 300}) {
      const auto numel = static_cast<size_t>(rows * cols);
      const auto blocks = static_cast<size_t>(rows * Int8Blocks(cols));
      const auto x = RandomFloats(numel, 1);
      std::vector<int8_t> first;
      OnEverySimdTarget([&] {
        std::vector<int8_t> codes(numel);
        std::vector<float> scales(blocks), back(numel);
        QuantizeInt8(x.data(), rows, cols, codes.data(), scales.data());
        DequantizeInt8(codes.data(), scales.data(), rows, cols, back.data());
        if (first.empty()) first = codes;
        EXPECT_EQ(codes, first);
        for (size_t i = 0; i < numel; ++i) {
          const size_t row = i / static_cast<size_t>(cols), col = i % static_cast<size_t>(cols);
          const float scale = scales[row * static_cast<size_t>(Int8Blocks(cols)) + col / 128];
          EXPECT_LE(std::abs(back[i] - x[i]), 0.50001f * scale);
        }
      });
    }
  }
}

TEST(Int8Block, AwkwardBlocks) {
  OnEverySimdTarget([&] {
    std::vector<int8_t> codes(128);
    std::vector<float> back(128);
    const auto round_trip = [&](const std::vector<float>& x) {
      float scale = -1;
      QuantizeInt8(x.data(), 1, 128, codes.data(), &scale);
      DequantizeInt8(codes.data(), &scale, 1, 128, back.data());
      return scale;
    };
    std::vector<float> x(128);
    EXPECT_EQ(round_trip(x), 0.0f);
    EXPECT_EQ(back, x);
    x[3] = 127, x[4] = -127, x[5] = 0.5f, x[6] = 1.5f;
    EXPECT_EQ(round_trip(x), 1.0f);
    EXPECT_EQ(codes[3], 127);
    EXPECT_EQ(codes[4], -127);
    EXPECT_EQ(codes[5], 0);  // ties to even
    EXPECT_EQ(codes[6], 2);
    x.assign(128, 0);
    x[0] = std::numeric_limits<float>::max();
    round_trip(x);
    EXPECT_EQ(codes[0], 127);
    EXPECT_EQ(codes[1], 0);
    x[0] = 100 * std::numeric_limits<float>::denorm_min();
    round_trip(x);
    EXPECT_LE(std::abs(back[0] - x[0]), x[0]);
    for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
      x[77] = bad;
      round_trip(x);
      for (const float b : back) EXPECT_FALSE(std::isfinite(b));
    }
  });
}

}  // namespace
}  // namespace tw::kernels
