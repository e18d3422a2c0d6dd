#include "core/data/synthetic_samples.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace tw {
namespace {

TEST(SyntheticSamples, DependOnTheSeedAlone) {
  const ImageData a = SyntheticImages(1, 50), b = SyntheticImages(1, 60),
                  c = SyntheticImages(2, 50);
  EXPECT_TRUE(std::equal(a.pixels.begin(), a.pixels.end(), b.pixels.begin()));
  EXPECT_NE(a.pixels, c.pixels);
  EXPECT_EQ(SyntheticRows(1, 50).values, SyntheticRows(1, 50).values);
  EXPECT_NE(SyntheticRows(1, 50).values, SyntheticRows(2, 50).values);
}

TEST(SyntheticSamples, HoldEveryClass) {
  const ImageData images = SyntheticImages(1, 1000);
  for (int32_t c = 0; c < 10; ++c)
    EXPECT_GT(std::count(images.labels.begin(), images.labels.end(), c), 50);
  const SparseRows rows = SyntheticRows(1, 1000);
  EXPECT_GT(std::count(rows.labels.begin(), rows.labels.end(), 1), 300);
  EXPECT_GT(std::count(rows.labels.begin(), rows.labels.end(), 0), 300);
  EXPECT_EQ(rows.row_begin.size(), 1001u);
}

}  // namespace
}  // namespace tw
