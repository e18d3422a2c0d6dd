#include "core/api/knob.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace tw {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;

const Knob kRank = {.key = "rank", .value = 4, .low = 1, .high = 1024, .whole = true};
const Knob kRatio = {.key = "ratio", .value = 0.01, .low = 1e-9, .high = 1};

TEST(Knob, IntegersReachFromTheFloorToTheCeiling) {
  EXPECT_THAT(kRank.Options(0.5, 2, 16), ElementsAre(2, 3, 4, 5, 6, 7, 8));
  Knob three = kRank;
  three.value = 3;
  EXPECT_THAT(three.Options(0.5, 1.5, 16), ElementsAre(1, 2, 3, 4, 5));
  three.value = 1;
  EXPECT_THAT(three.Options(0.5, 1, 16), ElementsAre(1));
  three.value = 10;
  EXPECT_THAT(three.Options(0.7, 1, 16), ElementsAre(7, 8, 9, 10));  // 0.7 * 10 is a little more
}

TEST(Knob, ValuesStayInTheirRange) {
  const Knob bits = {.key = "bits", .value = 6, .low = 1, .high = 8, .whole = true};
  EXPECT_THAT(bits.Options(0.5, 2, 16), ElementsAre(3, 4, 5, 6, 7, 8));
  Knob all = kRatio;
  all.value = 0.8;
  EXPECT_EQ(all.Options(0.5, 2, 5).back(), 1.0);
}

TEST(Knob, RealValuesAreSpacedByFactorsAndKeepTheirOwn) {
  const auto options = kRatio.Options(0.5, 2, 16);
  EXPECT_EQ(options.size(), 16u);
  EXPECT_THAT(options, Contains(0.01));
  EXPECT_TRUE(std::is_sorted(options.begin(), options.end()));
  EXPECT_DOUBLE_EQ(options.front(), 0.005);
  EXPECT_DOUBLE_EQ(options.back(), 0.02);
  EXPECT_THAT(kRatio.Options(0.1, 10, 1), ElementsAre(0.01));
}

TEST(Knob, TooManyIntegersAreThinnedOut) {
  Knob wide = kRank;
  wide.value = 64;
  const auto options = wide.Options(0.25, 4, 8);
  EXPECT_LE(options.size(), 8u);
  EXPECT_THAT(options, Contains(64));
  EXPECT_EQ(options.front(), 16);
  EXPECT_EQ(options.back(), 256);
}

TEST(Knob, OnlyStepsThatDifferInBytesAreOffered) {
  const Knob levels = {.key = "levels",
                       .value = 15,
                       .low = 1,
                       .high = 127,
                       .whole = true,
                       .steps = {1, 3, 7, 15, 31, 63, 127}};
  EXPECT_THAT(levels.Options(0.4, 3, 16), ElementsAre(7, 15, 31));
  Knob between = levels;
  between.value = 20;
  EXPECT_THAT(between.Options(0.3, 3, 16), ElementsAre(7, 20, 31));
}

TEST(Knob, SettingsAreOfTheConfigsType) {
  EXPECT_EQ(ToToml(kRank.Setting(8)), "8");
  EXPECT_EQ(ToToml(kRatio.Setting(0.02)), "0.02");
  EXPECT_EQ(kRank.Label(8), "rank 8");
  EXPECT_EQ(kRatio.Label(0.0125), "ratio 0.0125");
  EXPECT_FALSE(Knob{}.exists());
}

}  // namespace
}  // namespace tw
