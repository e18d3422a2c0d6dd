#include "launch/grouping.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tw {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Grouping Choose(const std::string& hierarchical, int64_t group_size,
                const std::vector<int64_t>& hosts) {
  Settings settings;
  settings.comm.hierarchical = hierarchical;
  settings.comm.group_size = group_size;
  auto grouping = ChooseGrouping(settings, hosts);
  TW_CHECK_OK(grouping);
  return *grouping;
}

TEST(Grouping, AutoGroupsHostsOfSeveralRanks) {
  EXPECT_THAT(Choose("auto", 0, {5, 5, 2, 2}).group_of, ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(Choose("auto", 0, {0, 1, 0, 1, 1}).group_of, ElementsAre(0, 1, 0, 1, 1));
  EXPECT_EQ(Choose("auto", 0, {5, 5, 2, 2}).exchanging(4), 2);
}

TEST(Grouping, OneHostOrOneRankAHostIsFlat) {
  for (const std::vector<int64_t>& hosts :
       {std::vector<int64_t>{0}, std::vector<int64_t>{0, 0, 0}, std::vector<int64_t>{0, 1, 2}}) {
    EXPECT_THAT(Choose("auto", 0, hosts).group_of, IsEmpty());
    EXPECT_THAT(Choose("auto", 0, hosts).notes, IsEmpty());
    EXPECT_EQ(Choose("auto", 0, hosts).exchanging(3), 3);
  }
  EXPECT_THAT(Choose("on", 0, {0, 0}).notes, ElementsAre(HasSubstr("does nothing: all ranks")));
  EXPECT_THAT(Choose("on", 0, {0, 1}).notes, ElementsAre(HasSubstr("does nothing: every group")));
}

TEST(Grouping, OffIsFlat) { EXPECT_THAT(Choose("off", 0, {0, 0, 1, 1}).group_of, IsEmpty()); }

TEST(Grouping, GroupsOfAGivenSizeTakeRanksInARow) {
  EXPECT_THAT(Choose("auto", 2, {0, 0, 0, 0, 0}).group_of, ElementsAre(0, 0, 1, 1, 2));
  EXPECT_THAT(Choose("off", 2, {0, 0, 0}).notes, ElementsAre(HasSubstr("does nothing")));
}

TEST(Grouping, APlannerNeedsEveryRanksMessage) {
  Settings settings;
  settings.planner = "lgreco";
  const auto flat = ChooseGrouping(settings, {0, 0, 1, 1});
  ASSERT_TRUE(flat.ok());
  EXPECT_THAT(flat->group_of, IsEmpty());
  EXPECT_THAT(flat->notes, ElementsAre(HasSubstr("planner lgreco")));
  settings.comm.hierarchical = "on";
  EXPECT_EQ(ExitCode(ChooseGrouping(settings, {0, 0, 1, 1}).status()), 2);
}

}  // namespace
}  // namespace tw
