#include "core/kernels/expand.h"

#include <vector>

#include "gtest/gtest.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/core/kernels/simd_paths.h"

namespace tw::kernels {
namespace {

TEST(ExpandKernel, EveryTargetAgreesWithTheElementByElementForm) {
  for (const int64_t rows : {0, 1, 4, 7}) {
    for (const int64_t rank : {0, 1, 5, 32}) {
      for (const int64_t cols : {0, 1, 15, 16, 33, 64}) {
        const ExpandShape shape{rows, rank, cols, cols + 3};
        const auto size = [](int64_t n) { return static_cast<size_t>(n); };
        const auto value = RandomFloats(size(rows * shape.stride), 1);
        const auto update = RandomFloats(size(rows * rank), 2);
        const auto strip = RandomFloats(size(rank * kStripCols), 3);
        auto expected = value;
        ExpandStripReference(expected.data(), shape, update.data(), strip.data(), 0.75f, -0.5f);
        OnEverySimdTarget([&] {
          auto out = value;
          ExpandStrip(out.data(), shape, update.data(), strip.data(), 0.75f, -0.5f);
          EXPECT_EQ(out, expected) << rows << " x " << rank << " x " << cols;
        });
      }
    }
  }
}

TEST(ExpandKernel, WorkedByHand) {
  std::vector<float> value = {1, 2, 3, 4};         // [2, 2]
  const std::vector<float> update = {1, 2, 3, 4};  // [2, 2]
  std::vector<float> strip(2 * kStripCols);        // [[1, 0], [10, 100]]
  strip[0] = 1, strip[kStripCols] = 10, strip[kStripCols + 1] = 100;
  ExpandStrip(value.data(), {2, 2, 2, 2}, update.data(), strip.data(), 0.5f, 2.0f);
  EXPECT_EQ(value, (std::vector<float>{42.5, 401, 87.5, 802}));
}

}  // namespace
}  // namespace tw::kernels
