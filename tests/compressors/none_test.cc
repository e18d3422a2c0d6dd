#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "core/api/convert.h"
#include "tests/compressors/codec_under_test.h"
#include "tests/core/kernels/sample_data.h"

namespace tw {
namespace {

using Bytes = std::vector<uint8_t>;

TEST(None, SendsTheBytesOfFloats) {
  CodecUnderTest none("none", {2});
  std::vector<float> x = {1.0f, -2.0f};
  EXPECT_EQ(none.Encode(x), (Bytes{0, 0, 0x80, 0x3F, 0, 0, 0, 0xC0}));
  EXPECT_EQ(x, (std::vector<float>{0, 0}));
}

TEST(None, SendsEveryTypeAsItIs) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kF16, DType::kBF16}) {
    CodecUnderTest none("none", {129}, {}, dtype);
    Bytes storage(static_cast<size_t>(129 * DTypeBytes(dtype)));
    TensorView view{storage.data(), dtype, 129};
    ConvertFromFp32(RandomFloats(129, 1), view);
    const Bytes before = storage;
    Message message{view, {}, 1.0f};
    const Bytes body = none.EncodeMessage(message);
    EXPECT_EQ(body, before) << DTypeName(dtype);
    EXPECT_EQ(storage, Bytes(storage.size(), 0));
    ASSERT_TRUE(none.codec->DecodeAddAny(body, 1.0f, none.context, view).ok());
    EXPECT_EQ(storage, before) << DTypeName(dtype);
  }
}

TEST(None, DecodesAnotherTypeThanTheParameters) {
  CodecUnderTest none("none", {2}, {}, DType::kF64);
  std::vector<double> x = {1.5, 1e300};
  Message message{{x.data(), DType::kF64, 2}, {}, 1.0f};
  Bytes body = none.EncodeMessage(message);
  body.insert(body.begin(), 0);  // at an odd address, as behind another body
  std::vector<double> out = {1, 0};
  ASSERT_TRUE(none.codec
                  ->DecodeAddAny(ByteSpan(body).subspan(1), 2.0f, none.context,
                                 {out.data(), DType::kF64, 2})
                  .ok());
  EXPECT_EQ(out, (std::vector<double>{4, 2e300}));
}

TEST(None, RoundsAnFp32MessageToTheParametersTypeAndLeavesTheRest) {
  CodecUnderTest none("none", {300}, {}, DType::kBF16);
  std::vector<float> x = RandomFloats(300, 1);
  const std::vector<float> before = x;
  Message message{ViewOf(x), {}, 1.0f};
  const Bytes body = none.EncodeMessage(message);
  ASSERT_EQ(body.size(), 600u);
  std::vector<float> decoded(300, 0.0f);
  ASSERT_TRUE(none.codec->DecodeAddAny(body, 1.0f, none.context, ViewOf(decoded)).ok());
  for (size_t i = 0; i < 300; ++i) {
    EXPECT_EQ(decoded[i], Bf16ToFloat(FloatToBf16(before[i])));
    EXPECT_EQ(decoded[i] + x[i], before[i]);
  }
}

TEST(None, RefusesAnotherSize) {
  CodecUnderTest none("none", {2});
  ExpectDataLoss(none, Bytes(7));
  ExpectDataLoss(none, Bytes(9));
  ExpectDataLoss(none, {});
}

TEST(None, SendsNothingForNothing) {
  CodecUnderTest none("none", {0});
  std::vector<float> x;
  EXPECT_TRUE(none.Encode(x).empty());
  EXPECT_TRUE(none.DecodeAdd({}, 1.0f, x).ok());
}

}  // namespace
}  // namespace tw
