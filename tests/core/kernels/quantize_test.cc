#include "core/kernels/quantize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/base/rng.h"
#include "gtest/gtest.h"
#include "tests/core/kernels/simd_paths.h"

namespace tw::kernels {
namespace {

std::vector<float> Numbers(int64_t n, uint64_t seed, float magnitude = 1.0f) {
  const RngStream rng = RngStream::Of(seed, RngPurpose::kTest, 0, 0, 0);
  std::vector<float> x(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    const float u = rng.Uniform(i) - 0.5f;
    x[i] = magnitude * u * u * u;  // some large, many small
  }
  return x;
}

QuantizeSpec Spec(int bits, int64_t block, bool stochastic) {
  QuantizeSpec spec;
  spec.bits = bits;
  spec.levels = bits == 1 ? 1 : (1 << (bits - 1)) - 1;
  spec.block = block;
  spec.stochastic = stochastic;
  if (bits == 1 && !stochastic) spec.scale = ScaleRule::kMeanAbs;
  return spec;
}

TEST(PackBits, PutsCodeZeroInTheLowBits) {
  const uint8_t codes[] = {1, 2, 3, 4, 5, 6, 7, 0, 5};
  uint8_t packed[4];
  PackBits(codes, 9, 3, packed);
  // 001 010 011 100 101 110 111 000 read from bit 0: 0b000111110101100011010001, then 101.
  EXPECT_EQ(packed[0], 0xD1);
  EXPECT_EQ(packed[1], 0x58);
  EXPECT_EQ(packed[2], 0x1F);
  EXPECT_EQ(packed[3], 0x05);
}

TEST(PackBits, RoundTripsEveryWidthAndLength) {
  for (int bits = 1; bits <= 8; ++bits) {
    for (int64_t n = 0; n < 70; ++n) {
      std::vector<uint8_t> codes(n), back(n, 0xAA);
      for (int64_t i = 0; i < n; ++i) codes[i] = (i * 37 + 11) & ((1 << bits) - 1);
      std::vector<uint8_t> packed((n * bits + 7) / 8 + 1, 0xEE);
      PackBits(codes.data(), n, bits, packed.data());
      EXPECT_EQ(packed.back(), 0xEE) << "wrote past the end";
      UnpackBits(packed.data(), n, bits, back.data());
      EXPECT_EQ(codes, back) << bits << " bits, " << n;
    }
  }
}

TEST(PackTrits, PutsFiveInAByteAndRoundTrips) {
  const uint8_t trits[] = {2, 1, 0, 0, 1, 2};
  uint8_t packed[2];
  PackTrits(trits, 6, packed);
  EXPECT_EQ(packed[0], 2 + 3 * 1 + 81 * 1);
  EXPECT_EQ(packed[1], 2);
  uint8_t back[6];
  UnpackTrits(packed, 6, back);
  EXPECT_TRUE(std::equal(trits, trits + 6, back));
}

TEST(PackTrits, EveryLengthRoundTripsAndNothingBehindItIsTouched) {
  for (int64_t n = 0; n <= 40; ++n) {
    std::vector<uint8_t> trits, packed((static_cast<size_t>(n) + 4) / 5);
    for (int64_t i = 0; i < n; ++i) trits.push_back(static_cast<uint8_t>((i * i + i / 3) % 3));
    PackTrits(trits.data(), n, packed.data());
    std::vector<uint8_t> back(static_cast<size_t>(n) + 1, 0xEE);
    UnpackTrits(packed.data(), n, back.data());
    EXPECT_EQ(back.back(), 0xEE) << n;
    back.pop_back();
    EXPECT_EQ(back, trits) << n;
  }
}

struct Case {
  const char* what;
  QuantizeSpec spec;
  int64_t numel;
  float magnitude;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (int bits = 1; bits <= 8; ++bits) {
    for (bool stochastic : {false, true}) {
      for (int64_t numel : {1, 7, 128, 129, 1000, 5000}) {
        cases.push_back({"block", Spec(bits, 128, stochastic), numel, 3.0f});
      }
      cases.push_back({"long block", Spec(bits, 4096, stochastic), 9999, 1e-3f});
      cases.push_back({"huge", Spec(bits, 64, stochastic), 333, 3.3e38f});
      cases.push_back({"denormal", Spec(bits, 64, stochastic), 333, 1e-41f});
    }
  }
  QuantizeSpec norm = Spec(5, 0, true);
  norm.scale = ScaleRule::kL2Norm;
  cases.push_back({"norm", norm, 4001, 1.0f});
  QuantizeSpec trits = Spec(2, 0, true);
  trits.packing = Packing::kTrits;
  for (int64_t numel : {1, 4, 5, 1281, 4003}) cases.push_back({"trits", trits, numel, 1.0f});
  return cases;
}

TEST(Quantize, EverySimdTargetAgreesWithTheReferenceBitForBit) {
  for (const Case& c : Cases()) {
    // The addition can overflow no more than the test's own numbers.
    const auto e = Numbers(c.numel, 1, c.magnitude), g = Numbers(c.numel, 2, c.magnitude);
    const QuantizeStream stream{0x1234567890ull, 777};
    auto expected = e;
    std::vector<uint8_t> expected_body(c.spec.BodyBytes(c.numel));
    QuantizeReference({expected, g.data(), -0.5f}, c.spec, stream, expected_body.data());
    auto expected_out = Numbers(c.numel, 3);
    DequantizeAddReference(expected_body.data(), c.spec, 0.75f, expected_out);
    OnEverySimdTarget([&] {
      auto x = e;
      std::vector<uint8_t> body(expected_body.size(), 0xCC);
      Quantize({x, g.data(), -0.5f}, c.spec, stream, body.data());
      EXPECT_EQ(x, expected) << c.what << " bits " << c.spec.bits;
      EXPECT_EQ(body, expected_body) << c.what << " bits " << c.spec.bits;
      EXPECT_TRUE(CheckQuantized(body, c.numel, c.spec).ok());
      auto out = Numbers(c.numel, 3);
      DequantizeAdd(body.data(), c.spec, 0.75f, out);
      EXPECT_EQ(out, expected_out) << c.what << " bits " << c.spec.bits;
    });
  }
}

TEST(Quantize, LeavesMessageMinusDecodedBodyAndNothingThatIsNotFinite) {
  for (const Case& c : Cases()) {
    const auto message = Numbers(c.numel, 4, c.magnitude);
    auto x = message;
    std::vector<uint8_t> body(c.spec.BodyBytes(c.numel));
    Quantize({x}, c.spec, {9, 0}, body.data());
    std::vector<float> decoded(c.numel, 0.0f);
    DequantizeAdd(body.data(), c.spec, 1.0f, decoded);
    for (int64_t i = 0; i < c.numel; ++i) {
      ASSERT_TRUE(std::isfinite(decoded[i])) << c.what << " bits " << c.spec.bits;
      ASSERT_EQ(x[i], message[i] - decoded[i]) << c.what << " bits " << c.spec.bits << " at " << i;
    }
  }
}

TEST(Quantize, NumbersBelongToElementsAcrossTheFourBillionBorder) {
  // A chunk that starts below 2^32 and ends above it draws what two chunks cut there draw.
  const QuantizeSpec spec = Spec(4, 128, true);
  const uint64_t first = (uint64_t{1} << 32) - 256;
  const auto message = Numbers(512, 5);
  auto whole = message, halves = message;
  std::vector<uint8_t> a(spec.BodyBytes(512)), b(a.size());
  Quantize({whole}, spec, {3, first}, a.data());
  Quantize({std::span(halves).first(256)}, spec, {3, first}, b.data());
  Quantize({std::span(halves).subspan(256)}, spec, {3, first + 256}, b.data() + a.size() / 2);
  EXPECT_EQ(a, b);
  EXPECT_EQ(whole, halves);
}

TEST(Quantize, StochasticRoundingNeverMovesAValueOnTheGrid) {
  std::vector<float> message(256);
  for (int i = 0; i < 256; ++i) message[i] = static_cast<float>(i % 255 - 127);
  for (uint64_t key = 0; key < 200; ++key) {
    auto x = message;
    const QuantizeSpec spec = Spec(8, 256, true);
    std::vector<uint8_t> body(spec.BodyBytes(256));
    Quantize({x}, spec, {key, 0}, body.data());
    for (float r : x) ASSERT_EQ(r, 0.0f) << key;
  }
}

TEST(Quantize, SumScaleDoesNotDependOnOverflowOfSquares) {
  const std::vector<float> large(4, 1e30f), small(4, 1e-30f);
  EXPECT_NEAR(SumScale(large, ScaleRule::kL2Norm) / 2e30f, 1.0, 1e-6);
  EXPECT_NEAR(SumScale(small, ScaleRule::kL2Norm) / 2e-30f, 1.0, 1e-6);
  const std::vector<float> most(100, std::numeric_limits<float>::max());
  EXPECT_EQ(SumScale(most, ScaleRule::kL2Norm), std::numeric_limits<float>::max());
}

TEST(CheckQuantized, RefusesSizesScalesAndStrayBits) {
  const QuantizeSpec spec = Spec(3, 8, false);  // blocks of 4 + 3 bytes
  std::vector<uint8_t> body(spec.BodyBytes(9), 0);
  EXPECT_EQ(body.size(), 7u + 5u);
  EXPECT_TRUE(CheckQuantized(body, 9, spec).ok());
  EXPECT_FALSE(CheckQuantized(ByteSpan(body).first(11), 9, spec).ok());
  EXPECT_FALSE(CheckQuantized(body, 8, spec).ok());
  auto bad = body;
  bad.back() = 0x08;  // bit 3: only three are used
  EXPECT_FALSE(CheckQuantized(bad, 9, spec).ok());
  for (float scale :
       {-1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    bad = body;
    StoreLE(bad.data() + 7, scale);
    EXPECT_FALSE(CheckQuantized(bad, 9, spec).ok()) << scale;
  }
}

}  // namespace
}  // namespace tw::kernels
