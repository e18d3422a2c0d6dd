#include "core/api/convert.h"

#include <vector>

#include "gtest/gtest.h"

namespace tw {
namespace {

TEST(AddScaled, ComputesInFp64WhenEitherSideIsFp64) {
  const float third = 1.0f / 3.0f;
  std::vector<float> from = {0.1f};
  std::vector<double> to = {0};
  AddScaled({to.data(), DType::kF64, 1}, ViewOf(from), third);
  EXPECT_EQ(to[0], static_cast<double>(third) * static_cast<double>(0.1f));
  std::vector<double> wide = {1.0};
  std::vector<float> narrow = {1e-9f};
  AddScaled(ViewOf(narrow), {wide.data(), DType::kF64, 1}, -1e-9f);
  EXPECT_EQ(narrow[0], 0.0f);
}

TEST(AddScaled, RoundsHalfPrecisionSumsOnce) {
  std::vector<uint16_t> to = {FloatToBf16(1.0f)};
  std::vector<float> from = {0x1.0p-8f};
  AddScaled({to.data(), DType::kBF16, 1}, ViewOf(from), 3.0f);
  EXPECT_EQ(Bf16ToFloat(to[0]), 1.015625f);  // 1 + 3/256 is a tie: to even
}

}  // namespace
}  // namespace tw
