#include "core/kernels/state_codes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/base/rng.h"
#include "core/kernels/simd_target.h"
#include "gtest/gtest.h"

namespace tw::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr size_t kSizes[] = {0, 1, 2, 3, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1001, 4097};
constexpr Code4 kCodes4[] = {Code4::kDeSigned, Code4::kDeUnsigned, Code4::kDeNoZero,
                             Code4::kLinear};

template <class F>
void OnEveryTarget(F&& body) {
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(LimitSimdTarget(target));
    body(target);
  }
  LimitSimdTarget("");
}

// Standard normal numbers.
std::vector<float> Normal(size_t n, uint32_t id) {
  const RngStream rng = RngStream::Of(3, RngPurpose::kTest, 0, id, 0);
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) {
    const auto r = rng.At(i);
    const double u = (r[0] + 0.5) * 0x1p-32, w = r[1] * 0x1p-32;
    out[i] = static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * w));
  }
  return out;
}

struct Coded {
  std::vector<uint8_t> codes;
  std::vector<float> scales, back;
  Coded(Code4 code, const std::vector<float>& x) {
    const int64_t n = static_cast<int64_t>(x.size());
    codes.assign(static_cast<size_t>(NibbleBytes(n)), 0xEE);
    scales.assign(static_cast<size_t>(Blocks(n, kStateBlock4)), -1);
    back.assign(x.size(), -1);
    EncodeBlocks4(code, x, codes, scales);
    DecodeBlocks4(code, codes, scales, back);
  }
  Coded(Code8 code, const std::vector<float>& x) {
    const int64_t n = static_cast<int64_t>(x.size());
    codes.assign(x.size(), 0xEE);
    scales.assign(static_cast<size_t>(Blocks(n, kStateBlock8)), -1);
    back.assign(x.size(), -1);
    EncodeBlocks8(code, x, codes, scales);
    DecodeBlocks8(code, codes, scales, back);
  }
};

using Bytes = std::vector<uint8_t>;
using Floats = std::vector<float>;

TEST(StateCodes4, GoldenVectors) {
  OnEveryTarget([&](const std::string& target) {
    const Coded m(Code4::kDeSigned, {1, -1, .5f, -.5f, .1f, -.1f, .01f, 0});
    EXPECT_EQ(m.codes, (Bytes{0x0F, 0x2C, 0x4A, 0x78})) << target;
    EXPECT_EQ(m.back, (Floats{1, -.8875f, .4375f, -.4375f, .0775f, -.0775f, .0055f, 0}));
    const Coded v(Code4::kLinear, {1, .5f, .03f, 0, .0625f, .09f, .1f, .97f});
    EXPECT_EQ(v.codes, (Bytes{0x7F, 0x00, 0x00, 0xF1})) << target;
    EXPECT_EQ(v.back, (Floats{1, .5f, .0625f, .0625f, .0625f, .0625f, .125f, 1}));
    EXPECT_EQ(m.scales, Floats{1});
  });
}

TEST(StateCodes4, RankOneScalesAreTheSmallerOfRowAndColumn) {
  const Floats x = {1, 2, 3, 40};
  Floats rows(2), cols(2), scales(4);
  RaiseRank1(x, 0, rows, cols);
  EXPECT_EQ(rows, (Floats{2, 40}));
  EXPECT_EQ(cols, (Floats{3, 40}));
  Rank1Scales(0, rows, cols, scales);
  EXPECT_EQ(scales, (Floats{2, 2, 3, 40}));
  Floats in_parts_rows(2), in_parts_cols(2), last(2);
  RaiseRank1(std::span(x).first(1), 0, in_parts_rows, in_parts_cols);
  RaiseRank1(std::span(x).subspan(1), 1, in_parts_rows, in_parts_cols);
  EXPECT_EQ(in_parts_rows, rows);
  EXPECT_EQ(in_parts_cols, cols);
  Rank1Scales(1, rows, cols, last);
  EXPECT_EQ(last, (Floats{2, 3}));
}

TEST(StateCodes4, EveryTargetFindsTheNearestCode) {
  for (const Code4 code : kCodes4) {
    Floats x;  // all midpoints, their neighbours, and normal numbers
    for (const float mid : Midpoints(code)) {
      for (const float y : {mid, std::nextafter(mid, 2.0f), std::nextafter(mid, -2.0f)}) {
        x.push_back(y);
      }
    }
    for (const float y : {0.0f, -0.0f, 1.0f, 1e-30f, 1e-45f}) x.push_back(y);
    for (float y : Normal(1001, 1))
      x.push_back(code == Code4::kDeSigned ? y / 4 : std::fabs(y) / 4);
    for (float& y : x) y = std::min(1.0f, std::max(-1.0f, y));
    OnEveryTarget([&](const std::string& target) {
      Bytes packed(static_cast<size_t>(NibbleBytes(static_cast<int64_t>(x.size()))));
      Floats back(x.size());
      QuantizeUnit4(code, x, packed);
      DequantizeUnit4(code, packed, back);
      for (size_t i = 0; i < x.size(); ++i) {
        const uint8_t got = static_cast<uint8_t>((packed[i / 2] >> (4 * (i % 2))) & 15);
        ASSERT_EQ(got, NearestCode(code, x[i])) << target << " x " << x[i];
        ASSERT_EQ(back[i], Codebook(code)[got]);
      }
      if (x.size() % 2) {
        EXPECT_EQ(packed.back() >> 4, 0);
      }
    });
  }
}

// A tie goes to the lower code; nothing else of the codebook is nearer than the chosen number.
TEST(StateCodes4, NearestIsNearest) {
  for (const Code4 code : kCodes4) {
    const auto& book = Codebook(code);
    for (float x = -1; x <= 1; x += 1.0f / 1024) {
      if (code != Code4::kDeSigned && x < 0) continue;
      const float distance = std::fabs(book[NearestCode(code, x)] - x);
      for (const float other : book) EXPECT_LE(distance, std::fabs(other - x) + 1e-7f);
    }
  }
  EXPECT_EQ(NearestCode(Code4::kDeSigned, Midpoints(Code4::kDeSigned)[14]), 14);
}

TEST(StateCodes8, EveryTargetFindsTheNearestCode) {
  for (const Code8 code : {Code8::kDeSigned, Code8::kDeUnsigned}) {
    const auto& book = Codebook(code);
    Floats x = {1};
    if (code == Code8::kDeSigned) x.push_back(-1);
    for (const float y : book) x.push_back(y);
    for (size_t i = 0; i + 1 < book.size(); ++i) {
      const float mid = (book[i] + book[i + 1]) / 2;
      for (const float y : {mid * (1 - 2e-6f), mid, mid * (1 + 2e-6f)}) x.push_back(y);
    }
    for (float y : Normal(2000, 2)) {
      y = std::pow(10.0f, -std::fabs(2 * y));
      x.push_back(code == Code8::kDeSigned && x.size() % 2 ? -y : y);
    }
    Coded plain(code, {});
    OnEveryTarget([&](const std::string& target) {
      for (size_t start = 0; start < x.size(); start += 255) {  // a 1 in every block: scale 1
        Floats block(x.begin() + static_cast<std::ptrdiff_t>(start),
                     x.begin() + static_cast<std::ptrdiff_t>(std::min(start + 255, x.size())));
        block.push_back(1);
        const Coded coded(code, block);
        for (size_t i = 0; i < block.size(); ++i) {
          ASSERT_EQ(coded.codes[i], NearestCode(code, block[i])) << target << " x " << block[i];
          ASSERT_EQ(coded.back[i], book[coded.codes[i]]) << target;
          // 1e-6 from a midpoint either neighbour will do.
          for (const float other : book) {
            ASSERT_LE(std::fabs(coded.back[i] - block[i]),
                      std::fabs(other - block[i]) + 2e-6f * std::fabs(block[i]))
                << block[i];
          }
        }
      }
    });
  }
}

// The construction of the published map: means of neighbours on a grid of 0.1 .. 1 in each decade.
TEST(StateCodes8, BookIsTheDynamicExponentMap) {
  for (const Code8 code : {Code8::kDeSigned, Code8::kDeUnsigned}) {
    std::vector<double> want = {0, 1};
    for (int i = 0; i < 7; ++i) {
      const int count = code == Code8::kDeSigned ? 1 << i : 2 << i;
      for (int k = 0; k < count; ++k) {
        const double mean = std::pow(10.0, i - 6) * (0.1 + 0.9 * (k + 0.5) / count);
        want.push_back(mean);
        if (code == Code8::kDeSigned) want.push_back(-mean);
      }
    }
    std::sort(want.begin(), want.end());
    ASSERT_EQ(want.size(), 256u);
    for (size_t i = 0; i < 256; ++i) {
      EXPECT_NEAR(Codebook(code)[i], want[i], 1e-6 * std::fabs(want[i])) << i;
    }
  }
  EXPECT_NEAR(Codebook(Code8::kDeSigned)[0], -0.99296875, 1e-6);
  EXPECT_NEAR(Codebook(Code8::kDeSigned)[128], 5.5e-7, 1e-12);
}

TEST(StateCodes, SizesAndPartialBlocks) {
  for (const size_t n : kSizes) {
    const Floats x = Normal(n, 5);
    const Coded four(Code4::kDeSigned, x), eight(Code8::kDeSigned, x);
    for (size_t i = 0; i < n; ++i) {
      const float scale4 = four.scales[i / kStateBlock4], scale8 = eight.scales[i / kStateBlock8];
      EXPECT_NEAR(four.back[i], x[i], 0.1126f * scale4);
      EXPECT_NEAR(eight.back[i], x[i], 0.0071f * scale8);
    }
    if (n % 2) {
      EXPECT_EQ(four.codes.back() >> 4, 0);
    }
    OnEveryTarget([&](const std::string& target) {
      EXPECT_EQ(Coded(Code4::kDeSigned, x).codes, four.codes) << target << " n " << n;
      EXPECT_EQ(Coded(Code8::kDeSigned, x).codes, eight.codes) << target << " n " << n;
    });
  }
}

TEST(StateCodes, ZerosRestAsZerosAndTinyBlocksToo) {
  for (const float tiny : {0.0f, 1e-45f, 1e-39f}) {
    const Coded m(Code4::kDeSigned, Floats(128, tiny)), v(Code4::kLinear, Floats(128, tiny));
    EXPECT_EQ(m.codes, Bytes(64, 0x77));
    EXPECT_EQ(v.codes, Bytes(64, 0x00));
    EXPECT_EQ(m.scales, Floats{0});
    EXPECT_EQ(m.back, Floats(128, 0));
    EXPECT_EQ(v.back, Floats(128, 0));
    EXPECT_EQ(Coded(Code8::kDeSigned, Floats(256, tiny)).back, Floats(256, 0));
  }
}

TEST(StateCodes, NonFiniteNumbersShowAndSpoilTheirBlockOnly) {
  for (const float bad : {kInf, -kInf, std::nanf("")}) {
    Floats x = Normal(768, 6);
    x[300] = bad;
    OnEveryTarget([&](const std::string& target) {
      const Coded four(Code4::kDeSigned, x), eight(Code8::kDeSigned, x);
      for (size_t i = 0; i < x.size(); ++i) {
        EXPECT_EQ(std::isfinite(four.back[i]), i / 128 != 2) << target << " " << i;
        EXPECT_EQ(std::isfinite(eight.back[i]), i / 256 != 1) << target << " " << i;
      }
    });
  }
}

// Root mean square error over that of the numbers, 2^20 standard normal ones and their squares.
TEST(StateCodes4, ErrorOnNormalNumbers) {
  const Floats x = Normal(1 << 20, 7);
  Floats squares(x.size());
  for (size_t i = 0; i < x.size(); ++i) squares[i] = x[i] * x[i];
  const auto relative = [](const Floats& got, const Floats& want) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      error += std::pow(static_cast<double>(got[i]) - want[i], 2);
      norm += std::pow(static_cast<double>(want[i]), 2);
    }
    return std::sqrt(error / norm);
  };
  EXPECT_NEAR(relative(Coded(Code4::kDeSigned, x).back, x), 0.1484, 0.02 * 0.1484);
  EXPECT_NEAR(relative(Coded(Code4::kLinear, squares).back, squares), 0.1798, 0.02 * 0.1798);
  // Why v has no zero: with one, a tenth of it would divide by nothing.
  const Coded with_zero(Code4::kDeUnsigned, squares);
  const auto zeros = std::count(with_zero.back.begin(), with_zero.back.end(), 0.0f);
  EXPECT_NEAR(static_cast<double>(zeros) / static_cast<double>(x.size()), 0.091, 0.003);
}

TEST(Bf16, StochasticRoundingIsFairAndKeepsWhatFits) {
  const size_t n = 1 << 16;
  const Floats x(n, 1.0f + 0.3f / 128);  // 0.3 of the way to the next bf16
  std::vector<uint16_t> bits(n), again(n);
  RoundToBf16(x, 7, 0, bits);
  Floats wide(n);
  WidenBf16(bits, wide);
  double up = 0;
  for (const float y : wide) {
    ASSERT_TRUE(y == 1.0f || y == 1.0f + 1.0f / 128) << y;
    up += y > 1;
  }
  EXPECT_NEAR(up / n, 0.3, 5 * std::sqrt(0.3 * 0.7 / n));
  OnEveryTarget([&](const std::string& target) {
    RoundToBf16(std::span(x).first(37), 7, 0, std::span(again).first(37));
    RoundToBf16(std::span(x).subspan(37), 7, 37, std::span(again).subspan(37));
    EXPECT_EQ(again, bits) << target;
  });
  const Floats exact = {0.0f, -0.0f, 1.5f, -2.0f, kInf, -kInf, 0x1p-133f};
  std::vector<uint16_t> kept(exact.size());
  Floats back(exact.size());
  RoundToBf16(exact, 9, 0, kept);
  WidenBf16(kept, back);
  EXPECT_EQ(back, exact);
  const Floats nan = {std::nanf("")};
  RoundToBf16(nan, 9, 0, std::span(kept).first(1));
  WidenBf16(std::span(kept).first(1), std::span(back).first(1));
  EXPECT_TRUE(std::isnan(back[0]));
}

}  // namespace
}  // namespace tw::kernels
