#include "core/kernels/signs.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/kernels/elementwise_reference.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/core/kernels/simd_paths.h"

namespace tw {
namespace {

using kernels::SignMeans;

TEST(Signs, PacksBitsAndSumsLikeThePlainLoop) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      for (const bool add : {false, true}) {
        const auto x = AwkwardFloats(n, 1), g = RandomFloats(n, 2);
        std::vector<float> buffer = x, message = x;
        if (add) kernels::reference::AddInPlace(message, 0.5f, g);
        std::vector<uint8_t> bits(kernels::SignBytes(n) + 1, 0xAB), expected = bits;
        for (size_t i = 0; i < n; ++i) {
          if (i % 8 == 0) expected[i / 8] = 0;
          if (message[i] < 0) expected[i / 8] |= static_cast<uint8_t>(1 << (i % 8));
        }
        const auto sums = kernels::PackSigns({buffer, add ? g.data() : nullptr, 0.5f}, bits.data());
        EXPECT_EQ(bits, expected) << n;
        EXPECT_EQ(buffer, message);
        EXPECT_EQ(sums.positive,
                  kernels::reference::FixedSum(message, [](double v) { return v < 0 ? 0.0 : v; }));
        EXPECT_EQ(sums.negative,
                  kernels::reference::FixedSum(message, [](double v) { return v < 0 ? -v : 0.0; }));
        size_t num_negative = 0;
        for (const float v : message) num_negative += v < 0;
        EXPECT_EQ(sums.num_negative, num_negative);
      }
    }
  });
}

TEST(Signs, AddAndSubtractAgreeOnTheSignOfZero) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      std::vector<float> x = RandomFloats(n, 3);
      for (size_t i = 0; i < n; i += 4) x[i] = i % 8 ? 0.0f : -0.0f;
      std::vector<float> buffer = x;
      std::vector<uint8_t> bits(kernels::SignBytes(n));
      kernels::PackSigns({buffer}, bits.data());
      EXPECT_TRUE(n == 0 || kernels::SignPaddingIsZero(bits, n));
      kernels::SubtractBySign(buffer, 0.75f, -0.5f);
      std::vector<float> out(n, 1.0f);
      kernels::AddBySign(out, 0.75f, -0.5f, bits);
      for (size_t i = 0; i < n; ++i) {
        const float decoded = x[i] < 0 ? -0.5f : 0.75f;
        ASSERT_EQ(buffer[i], x[i] - decoded);
        ASSERT_EQ(out[i], 1.0f + decoded);
      }
    }
  });
}

TEST(Signs, SeesBitsBehindTheEnd) {
  const std::vector<uint8_t> bits = {0xFF, 0x08};
  EXPECT_TRUE(kernels::SignPaddingIsZero(bits, 12));
  EXPECT_FALSE(kernels::SignPaddingIsZero(bits, 11));
  EXPECT_TRUE(kernels::SignPaddingIsZero(bits, 16));
}

TEST(Signs, EncodesWithOneMeanOrOneForEachSign) {
  // |3| + |-1| + |2| + |-4| + 0 over five; 5/3 of what is >= 0 and -5/2 of what is < 0.
  const std::vector<float> x = {3, -1, 2, -4, 0};
  for (const SignMeans means : {SignMeans::kOne, SignMeans::kEach}) {
    const size_t count = static_cast<size_t>(means);
    const float plus = means == SignMeans::kOne ? 2.0f : 5.0f / 3.0f;
    const float minus = means == SignMeans::kOne ? -2.0f : -2.5f;
    std::vector<float> buffer = {1, 1, 1, 1, 1};
    const std::vector<float> addend = {2, -2, 1, -5, -1};
    std::vector<uint8_t> body(1 + 4 * count + 1, 0xCC);  // at an odd address
    uint8_t* const mean_bytes = body.data() + 1;
    uint8_t* const bits = mean_bytes + 4 * count;
    kernels::EncodeSigns({buffer, addend.data(), 1.0f}, means, mean_bytes, bits);
    EXPECT_EQ(*bits, 0b01010);
    EXPECT_EQ(LoadLE<float>(mean_bytes), plus);
    if (count == 2) {
      EXPECT_EQ(LoadLE<float>(mean_bytes + 4), minus);
    }
    std::vector<float> out(5, 10.0f);
    kernels::DecodeSignsAdd(out, 0.5f, means, mean_bytes, bits);
    for (size_t i = 0; i < x.size(); ++i) {
      const float decoded = x[i] < 0 ? minus : plus;
      EXPECT_EQ(buffer[i], x[i] - decoded);
      EXPECT_EQ(out[i], 10.0f + 0.5f * decoded);
    }
  }
}

TEST(Signs, AMeanOfNoneIsZero) {
  std::vector<float> x = {1, 3};
  uint8_t means[8], bits;
  kernels::EncodeSigns({x}, SignMeans::kEach, means, &bits);
  EXPECT_EQ(LoadLE<float>(means), 2.0f);
  EXPECT_EQ(LoadLE<float>(means + 4), 0.0f);
}

}  // namespace
}  // namespace tw
