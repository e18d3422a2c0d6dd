// topk with values of few bits and with entropy-coded indices.

#include <gtest/gtest.h>

#include <cmath>

#include "tests/compressors/codec_under_test.h"
#include "tests/core/kernels/sample_data.h"

namespace tw {
namespace {

using Bytes = std::vector<uint8_t>;

double Norm2(const std::vector<float>& x) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  return sum;
}

// By hand: -4 and 3 of ten elements; a = 3, b = 4, T = 7: -4 is code 2*7+1 = 15, 3 is code 0.
TEST(TopKValues, GoldenBytesOfFourBits) {
  CodecUnderTest topk("topk", {10}, {{"ratio", 0.2}, {"value_bits", int64_t{4}}});
  std::vector<float> x = {0, 1, -4, 1, 0, 2, -2, 3, 1, 0};
  const Bytes body = topk.Encode(x);
  EXPECT_EQ(body, (Bytes{2, 0, 0, 0, 0x72, 0, 0, 0x40, 0x40, 0, 0, 0x80, 0x40, 0x0F}));
  EXPECT_EQ(topk.Decode(body), (std::vector<float>{0, 0, -4, 0, 0, 0, 0, 3, 0, 0}));
  EXPECT_EQ(x, (std::vector<float>{0, 1, 0, 1, 0, 2, -2, 0, 1, 0}));
}

TEST(TopKValues, TheResidualKeepsWhatTheCodesLose) {
  for (const int64_t bits : {4, 8, 16}) {
    for (const size_t d : {1, 5, 1000, 30000}) {
      CodecUnderTest topk("topk", {static_cast<int64_t>(d)},
                          {{"ratio", 0.1}, {"value_bits", bits}});
      const std::vector<float> x = RandomFloats(d, 7);
      std::vector<float> residual = x;
      const Bytes body = topk.Encode(residual);
      EXPECT_EQ(static_cast<int64_t>(body.size()), topk.codec->MaxEncodedBytes(topk.spec, 0));
      const auto decoded = topk.Decode(body);
      for (size_t i = 0; i < d; ++i) ASSERT_NEAR(residual[i] + decoded[i], x[i], 1e-6);
      EXPECT_LE(Norm2(residual), (1 - topk.codec->Delta(topk.spec)) * Norm2(x) * (1 + 1e-6));
    }
  }
}

TEST(TopKValues, OfFewBitsAreSmaller) {
  const auto bytes = [](int64_t bits) {
    CodecUnderTest topk("topk", {1'000'000}, {{"value_bits", bits}});
    return topk.codec->MaxEncodedBytes(topk.spec, 0);
  };
  EXPECT_EQ(bytes(32), 4 + 25'000 + 40'000);
  EXPECT_EQ(bytes(4), 4 + 25'000 + 5'000 + 40 * 8);  // 39 groups of 256, one of 16
}

TEST(TopKValues, MalformedGridsAreRefused) {
  CodecUnderTest topk("topk", {10}, {{"ratio", 0.2}, {"value_bits", int64_t{4}}});
  std::vector<float> x = {0, 1, -4, 1, 0, 2, -2, 3, 1, 0};
  const Bytes body = topk.Encode(x);
  for (const size_t at : {8, 12}) {  // the sign or the exponent of a or b
    Bytes bad = body;
    bad[at] ^= 0x80;
    if (at == 12) bad[at] = 0x7F, bad[at - 1] = 0xFF;
    ExpectDataLoss(topk, bad);
  }
}

TEST(TopKEntropy, DecodesTheSameInFewerBytes) {
  for (const double ratio : {0.001, 0.01, 0.1}) {
    for (const int64_t bits : {4, 32}) {
      const ConfigKeys plain = {{"ratio", ratio}, {"value_bits", bits}};
      ConfigKeys coded = plain;
      coded.push_back({"entropy", std::string("zstd")});
      CodecUnderTest a("topk", {200'000}, plain), b("topk", {200'000}, coded);
      std::vector<float> x = RandomFloats(200'000, 3), y = x;
      const Bytes body = a.Encode(x), small = b.Encode(y);
      EXPECT_EQ(x, y);
      EXPECT_EQ(a.Decode(body), b.Decode(small));
      EXPECT_LT(small.size(), body.size());
      EXPECT_FALSE(b.codec->traits().fixed_size);
    }
  }
}

// log2 C(d, k) / k is 8.1 bits at 1 %, of 18 that fixed width takes.
TEST(TopKEntropy, IndicesComeNearTheirEntropy) {
  CodecUnderTest topk("topk", {200'000}, {{"entropy", std::string("zstd")}});
  std::vector<float> x = RandomFloats(200'000, 3);
  const double bits = 8.0 * (static_cast<double>(topk.Encode(x).size()) - 8 - 4 * 2000) / 2000;
  EXPECT_GT(bits, 8.0);
  EXPECT_LT(bits, 9.9);
}

TEST(TopKEntropy, SmallTensorsFallBackToFixedWidth) {
  for (const int64_t d : {1, 2, 9, 40}) {
    CodecUnderTest topk("topk", {d}, {{"ratio", 0.3}, {"entropy", std::string("zstd")}});
    std::vector<float> x = RandomFloats(static_cast<size_t>(d), 3);
    const std::vector<float> before = x;
    const Bytes body = topk.Encode(x);
    EXPECT_LE(static_cast<int64_t>(body.size()), topk.codec->MaxEncodedBytes(topk.spec, 0));
    const auto decoded = topk.Decode(body);
    for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(decoded[i] + x[i], before[i]);
  }
}

TEST(TopKEntropy, SurvivesEveryFlippedByteAndTruncation) {
  CodecUnderTest topk("topk", {5000}, {{"ratio", 0.05}, {"entropy", std::string("zstd")}});
  std::vector<float> x = RandomFloats(5000, 3);
  const Bytes body = topk.Encode(x);
  int refused = 0;
  for (size_t at = 0; at < body.size(); ++at) {
    Bytes bad = body;
    bad[at] ^= 0x10;
    std::vector<float> out(5000, 7.0f);
    const Status status = topk.DecodeAdd(bad, 1.0f, out);
    if (status.ok()) continue;
    ++refused;
    ASSERT_TRUE(absl::IsDataLoss(status)) << status;
    ASSERT_EQ(out, std::vector<float>(5000, 7.0f));
  }
  EXPECT_GT(refused, 10);
  for (size_t size = 0; size < body.size(); size += 17) {
    ExpectDataLoss(topk, Bytes(body.begin(), body.begin() + static_cast<ptrdiff_t>(size)));
  }
}

TEST(TopKEntropy, ListsItsEntries) {
  CodecUnderTest topk("topk", {5000}, {{"ratio", 0.05}, {"entropy", std::string("zstd")}});
  std::vector<float> x = RandomFloats(5000, 3);
  const Bytes body = topk.Encode(x);
  std::vector<kernels::IndexedValue> entries(250);
  const auto count = topk.codec->ListEntries(body, topk.context, entries);
  ASSERT_TRUE(count.ok()) << count.status();
  ASSERT_EQ(*count, 250u);
  const auto decoded = topk.Decode(body);
  for (const auto e : entries) {
    EXPECT_EQ(decoded[kernels::IndexOf(e)], std::bit_cast<float>(kernels::ValueBitsOf(e)));
  }
}

}  // namespace
}  // namespace tw
