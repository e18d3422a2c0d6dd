#include "core/kernels/elementwise.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/kernels/elementwise_reference.h"
#include "core/kernels/float16.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/core/kernels/simd_paths.h"

namespace tw {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

template <class T>
std::vector<uint32_t> Bits(const std::vector<T>& x) {
  std::vector<uint32_t> out;
  for (const T v : x) {
    if constexpr (sizeof(T) == 4) {
      out.push_back(std::bit_cast<uint32_t>(v));
    } else {
      out.push_back(v);
    }
  }
  return out;
}

// Spans that start one element into their allocation, so that no vector access is aligned.
template <class T>
std::span<T> Shifted(std::vector<T>& x) {
  return std::span<T>(x).subspan(x.empty() ? 0 : 1);
}

TEST(Elementwise, AddInPlaceRoundsLikeTheReferenceOnEveryTarget) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      std::vector<float> a = RandomFloats(n + 1, 1), b = RandomFloats(n + 1, 2);
      std::vector<float> expected = a;
      kernels::AddInPlace(Shifted(a), 0.3f, Shifted(b));
      kernels::reference::AddInPlace(Shifted(expected), 0.3f, Shifted(b));
      EXPECT_EQ(Bits(a), Bits(expected)) << n;
    }
  });
}

TEST(Elementwise, AddFromBytesReadsAtOddAddresses) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      std::vector<float> a = RandomFloats(n, 1), b = RandomFloats(n, 2), expected = a;
      std::vector<uint8_t> bytes(n * 4 + 1);
      if (n) std::memcpy(bytes.data() + 1, b.data(), n * 4);
      kernels::AddFromBytes(a, -2.5f, bytes.data() + 1);
      kernels::reference::AddInPlace(expected, -2.5f, b);
      EXPECT_EQ(Bits(a), Bits(expected)) << n;
    }
  });
}

TEST(Elementwise, ScaleMultipliesEveryElement) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      std::vector<float> a = AwkwardFloats(n + 1, 3), expected = a;
      kernels::Scale(Shifted(a), 0.7f);
      for (size_t i = 1; i < a.size(); ++i) expected[i] *= 0.7f;
      EXPECT_EQ(Bits(a), Bits(expected)) << n;
    }
  });
}

TEST(Elementwise, MoveOutLeavesZerosAndPerformsTheAddition) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      std::vector<float> a = RandomFloats(n, 4), b = RandomFloats(n, 5), expected = a;
      kernels::reference::AddInPlace(expected, 0.1f, b);
      std::vector<uint8_t> bytes(n * 4 + 1, 0xAB);
      kernels::MoveOut(a, b.data(), 0.1f, bytes.data() + 1);
      EXPECT_EQ(a, std::vector<float>(n, 0.0f));
      EXPECT_EQ(bytes[0], 0xAB);
      std::vector<float> moved(n + 1);
      std::memcpy(moved.data(), bytes.data() + 1, n * 4);
      moved.pop_back();
      EXPECT_EQ(Bits(moved), Bits(expected)) << n;
    }
  });
}

TEST(Float16, HalfValuesSurviveTheRoundTrip) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float value = kernels::HalfToFloat(static_cast<uint16_t>(h));
    if (std::isnan(value)) continue;
    EXPECT_EQ(kernels::FloatToHalf(value), h);
  }
}

// Worked by hand: 1 + 2^-11 is half way between two halves and goes to the even one.
TEST(Float16, RoundsToNearestEven) {
  EXPECT_EQ(kernels::FloatToHalf(1.0f), 0x3C00);
  EXPECT_EQ(kernels::FloatToHalf(1.0f + 0x1p-11f), 0x3C00);
  EXPECT_EQ(kernels::FloatToHalf(1.0f + 0x1.8p-10f), 0x3C02);
  EXPECT_EQ(kernels::FloatToHalf(0x1p-24f), 0x0001);
  EXPECT_EQ(kernels::FloatToHalf(0x1p-25f), 0x0000);
  EXPECT_EQ(kernels::FloatToHalf(0x1.8p-24f), 0x0002);
  EXPECT_EQ(kernels::FloatToHalf(-65504.0f), 0xFBFF);
  EXPECT_EQ(kernels::FloatToHalf(65520.0f), 0x7C00);
  EXPECT_EQ(kernels::FloatToHalfSaturated(65520.0f), 0x7BFF);
  EXPECT_EQ(kernels::FloatToBf16(1.0f + 0x1p-8f), 0x3F80);
  EXPECT_EQ(kernels::FloatToBf16(1.0f + 0x1.8p-7f), 0x3F82);
  EXPECT_EQ(kernels::FloatToBf16(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_EQ(kernels::FloatToBf16Saturated(std::numeric_limits<float>::max()), 0x7F7F);
}

TEST(Elementwise, ConvertsToSixteenBitsLikeTheScalarFunctions) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      std::vector<float> x = AwkwardFloats(n, 6);
      if (n > 40) {
        x[5] = kInf;
        x[9] = -kInf;
        x[11] = std::numeric_limits<float>::quiet_NaN();
      }
      std::vector<uint16_t> half(n), bf16(n), expected_half(n), expected_bf16(n);
      kernels::ConvertToHalf(x, half);
      kernels::ConvertToBf16(x, bf16);
      for (size_t i = 0; i < n; ++i) {
        expected_half[i] = kernels::FloatToHalfSaturated(x[i]);
        expected_bf16[i] = kernels::FloatToBf16(x[i]);
      }
      EXPECT_EQ(half, expected_half);
      EXPECT_EQ(bf16, expected_bf16);
    }
  });
}

TEST(Elementwise, ConvertsEverySixteenBitPatternBack) {
  OnEverySimdTarget([] {
    std::vector<uint16_t> bits(0x10000);
    for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
    std::vector<float> half(bits.size()), bf16(bits.size()), expected(bits.size());
    kernels::ConvertFromHalf(bits, half);
    for (size_t i = 0; i < bits.size(); ++i) expected[i] = kernels::HalfToFloat(bits[i]);
    EXPECT_EQ(Bits(half), Bits(expected));
    kernels::ConvertFromBf16(bits, bf16);
    for (size_t i = 0; i < bits.size(); ++i) expected[i] = kernels::Bf16ToFloat(bits[i]);
    EXPECT_EQ(Bits(bf16), Bits(expected));
  });
}

TEST(Elementwise, AddsSixteenBitValuesInFp32) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      const std::vector<float> x = RandomFloats(n, 7);
      std::vector<uint16_t> half(n), bf16(n);
      kernels::ConvertToHalf(x, half);
      kernels::ConvertToBf16(x, bf16);
      std::vector<float> a = RandomFloats(n, 8), expected = a;
      kernels::AddFromHalf(a, 0.3f, half);
      kernels::AddFromBf16(a, -1.7f, bf16);
      for (size_t i = 0; i < n; ++i) {
        expected[i] += 0.3f * kernels::HalfToFloat(half[i]);
        expected[i] += -1.7f * kernels::Bf16ToFloat(bf16[i]);
      }
      EXPECT_EQ(Bits(a), Bits(expected));
    }
  });
}

TEST(Elementwise, CastResidualKeepsWhatTheCastDropped) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      const std::vector<float> x = AwkwardFloats(n, 9), g = RandomFloats(n, 10);
      std::vector<float> buffer = x;
      std::vector<uint16_t> to(n);
      kernels::CastResidualHalf(buffer, g.data(), 0.5f, 0.25f, 4.0f, to);
      for (size_t i = 0; i < n; ++i) {
        const float m = x[i] + 0.5f * g[i];
        ASSERT_EQ(to[i], kernels::FloatToHalfSaturated(m * 0.25f));
        ASSERT_EQ(buffer[i], m - 4.0f * kernels::HalfToFloat(to[i]));
      }
      buffer = x;
      kernels::CastResidualBf16(buffer, nullptr, 1.0f, 0.25f, 4.0f, to);
      for (size_t i = 0; i < n; ++i) {
        ASSERT_EQ(to[i], kernels::FloatToBf16Saturated(x[i] * 0.25f));
        ASSERT_EQ(buffer[i], x[i] - 4.0f * kernels::Bf16ToFloat(to[i]));
      }
    }
  });
}

TEST(Elementwise, SumsBytesTakesTheLargerAndClears) {
  OnEverySimdTarget([] {
    for (const size_t n : kSizes) {
      std::vector<uint8_t> bytes(n), more(n), sums(n);
      for (size_t i = 0; i < n; ++i) {
        bytes[i] = static_cast<uint8_t>(i * 37), more[i] = static_cast<uint8_t>(i * 91 + 5);
        sums[i] = static_cast<uint8_t>(bytes[i] + more[i]);
      }
      kernels::AddBytes(bytes, more);
      EXPECT_EQ(bytes, sums);
      const std::vector<float> x = AwkwardFloats(n, 11);
      std::vector<float> y = RandomFloats(n, 12), larger = x, cleared = x;
      for (size_t i = 0; i < n; i += 5) y[i] = i % 2 ? NAN : i % 4 ? 0.0f : -0.0f;
      std::vector<float> want_larger = x, want_cleared = x;
      for (size_t i = 0; i < n; ++i) {
        want_larger[i] = std::max(x[i], y[i]);
        if (y[i] != 0) want_cleared[i] = 0;
      }
      kernels::TakeLarger(larger, y);
      kernels::ZeroWhere(cleared, y);
      EXPECT_EQ(Bits(larger), Bits(want_larger));
      EXPECT_EQ(Bits(cleared), Bits(want_cleared));
    }
  });
}

}  // namespace
}  // namespace tw
