#include <gtest/gtest.h>

#include <vector>

#include "tests/compressors/codec_under_test.h"
#include "tests/core/kernels/sample_data.h"

namespace tw {
namespace {

using Bytes = std::vector<uint8_t>;

// Worked by hand: d = 10, so 4 bits an index; indices 2 and 7 are 0x72; -4 is C0800000 and 3 is
// 40400000.
TEST(TopK, WritesCountIndicesValues) {
  CodecUnderTest topk("topk", {10}, {{"ratio", 0.2}});
  std::vector<float> x = {0, 1, -4, 1, 0, 2, -2, 3, 1, 0};
  const Bytes body = topk.Encode(x);
  EXPECT_EQ(body, (Bytes{2, 0, 0, 0, 0x72, 0, 0, 0x80, 0xC0, 0, 0, 0x40, 0x40}));
  EXPECT_EQ(x, (std::vector<float>{0, 1, 0, 1, 0, 2, -2, 0, 1, 0}));
  EXPECT_EQ(topk.Decode(body), (std::vector<float>{0, 0, -4, 0, 0, 0, 0, 3, 0, 0}));
}

TEST(TopK, BreaksTiesByLowestIndex) {
  CodecUnderTest topk("topk", {5}, {{"ratio", 0.4}});
  std::vector<float> x = {1, -2, 2, -2, 2};
  EXPECT_EQ(topk.Decode(topk.Encode(x)), (std::vector<float>{0, -2, 2, 0, 0}));
  EXPECT_EQ(x, (std::vector<float>{1, 0, 0, -2, 2}));
}

TEST(TopK, AddsThePendingTermBeforeSelecting) {
  CodecUnderTest topk("topk", {4}, {{"ratio", 0.25}});
  std::vector<float> e = {1, 0, 0, 0};
  const std::vector<float> g = {1, -8, 2, 0};
  EXPECT_EQ(topk.Decode(topk.Encode(e, g.data(), 0.5f)), (std::vector<float>{0, -4, 0, 0}));
  EXPECT_EQ(e, (std::vector<float>{1.5f, 0, 1, 0}));
}

TEST(TopK, DecodeAddScalesAndAdds) {
  CodecUnderTest topk("topk", {4}, {{"ratio", 0.25}});
  std::vector<float> x = {0, 0, 6, 1};
  const Bytes body = topk.Encode(x);
  std::vector<float> out = {1, 1, 1, 1};
  ASSERT_TRUE(topk.DecodeAdd(body, 0.5f, out).ok());
  EXPECT_EQ(out, (std::vector<float>{1, 1, 4, 1}));
}

TEST(TopK, SizeIsExactAndDependsOnNumelOnly) {
  for (const auto& [d, ratio, bytes] : std::vector<std::tuple<int64_t, double, int64_t>>{
           {1'000'000, 0.01, 4 + 25'000 + 40'000},  // 20-bit indices
           {1, 0.01, 4 + 0 + 4},
           {2, 0.01, 4 + 1 + 4},
           {129, 0.01, 4 + 1 + 4},     // round(1.29) = 1, 8 bits
           {150, 0.01, 4 + 2 + 8}}) {  // round(1.5) = 2
    CodecUnderTest topk("topk", {d}, {{"ratio", ratio}});
    EXPECT_EQ(topk.codec->MaxEncodedBytes(topk.spec, 0), bytes) << d;
    std::vector<float> x = RandomFloats(static_cast<size_t>(d), 1);
    EXPECT_EQ(static_cast<int64_t>(topk.Encode(x).size()), bytes) << d;
  }
}

TEST(TopK, RatioOneIsTheIdentity) {
  CodecUnderTest topk("topk", {33}, {{"ratio", 1.0}});
  const std::vector<float> x = AwkwardFloats(33, 2);
  std::vector<float> buffer = x;
  EXPECT_EQ(topk.Decode(topk.Encode(buffer)), x);
  EXPECT_EQ(buffer, std::vector<float>(33, 0.0f));
}

TEST(TopK, RefusesMalformedBodies) {
  CodecUnderTest topk("topk", {10}, {{"ratio", 0.2}});
  std::vector<float> x = {0, 1, -4, 1, 0, 2, -2, 3, 1, 0};
  const Bytes good = topk.Encode(x);
  Bytes bad = good;
  bad[0] = 3;  // count
  ExpectDataLoss(topk, bad);
  bad = good;
  bad[4] = 0x77;  // one index twice
  ExpectDataLoss(topk, bad);
  bad[4] = 0x27;  // descending
  ExpectDataLoss(topk, bad);
  bad[4] = 0xA2;  // 10 is out of range
  ExpectDataLoss(topk, bad);
  bad = good;
  bad.pop_back();
  ExpectDataLoss(topk, bad);
  bad = good;
  bad.push_back(0);
  ExpectDataLoss(topk, bad);
  ExpectDataLoss(topk, {});
}

TEST(TopK, RefusesRatiosOutsideZeroToOne) {
  for (const double ratio : {0.0, -0.1, 1.5}) {
    ConfigSection section;
    section.name = "compressor";
    section.Set("ratio", ratio);
    EXPECT_FALSE(Registry<Compressor>::Get().Find("topk")->make(section).ok()) << ratio;
  }
}

TEST(TopK, ContractionIsAtLeastTheKeptFraction) {
  CodecUnderTest topk("topk", {1000}, {{"ratio", 0.1}});
  EXPECT_DOUBLE_EQ(topk.codec->Delta(topk.spec), 0.1);
}

}  // namespace
}  // namespace tw
