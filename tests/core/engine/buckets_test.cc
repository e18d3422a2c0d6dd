#include "core/engine/buckets.h"

#include <gtest/gtest.h>

namespace tw {
namespace {

using Buckets = std::vector<std::vector<int>>;

TEST(AssignBuckets, FillsFromTheLastParameterUpToTheCap) {
  EXPECT_EQ(AssignBuckets(std::vector<int64_t>{64, 64, 64, 64, 64}, 128),
            (Buckets{{4, 3}, {2, 1}, {0}}));
}

TEST(AssignBuckets, OneLargerThanTheCapTravelsAlone) {
  EXPECT_EQ(AssignBuckets(std::vector<int64_t>{64, 1000, 64}, 128), (Buckets{{2}, {1}, {0}}));
  EXPECT_EQ(AssignBuckets(std::vector<int64_t>{1000}, 1), (Buckets{{0}}));
}

TEST(AssignBuckets, CountsWhatAlignmentAdds) {
  EXPECT_EQ(AssignBuckets(std::vector<int64_t>{1, 1, 1}, 128), (Buckets{{2, 1}, {0}}));
  EXPECT_EQ(AssignBuckets(std::vector<int64_t>{0, 0, 64}, 64), (Buckets{{2, 1, 0}}));
}

TEST(AssignBuckets, NothingMakesNoBucket) { EXPECT_TRUE(AssignBuckets({}, 64).empty()); }

}  // namespace
}  // namespace tw
