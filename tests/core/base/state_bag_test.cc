#include "core/base/state_bag.h"

#include <gtest/gtest.h>

namespace tw {
namespace {

TEST(StateBag, SlotsAreZeroedAndStayWhereTheyAre) {
  StateBag bag;
  bool created = false;
  const TensorView a = bag.Slot("feedback/w/e", {2, 3}, DType::kF32, Reshard::kKeepMean, &created);
  EXPECT_TRUE(created);
  EXPECT_EQ(a.numel, 6);
  for (float x : a.f32()) EXPECT_EQ(x, 0.0f);
  for (int i = 0; i < 100; ++i)
    bag.Slot("x/" + std::to_string(i), {1}, DType::kU8, Reshard::kReplicated);
  const TensorView b = bag.Slot("feedback/w/e", {2, 3}, DType::kF32, Reshard::kKeepMean, &created);
  EXPECT_FALSE(created);
  EXPECT_EQ(a.data, b.data);
  EXPECT_EQ(bag.bytes("feedback/"), 24);
}

TEST(StateBag, RollbackRestoresTouchedSlotsAndForgetsNewOnes) {
  StateBag bag;
  const auto kept = bag.Slot("kept", {2}, DType::kF32, Reshard::kKeepMean).f32();
  const auto untouched = bag.Slot("untouched", {1}, DType::kF32, Reshard::kKeepMean).f32();
  kept[0] = 1.5f;
  bag.BeginJournal();
  bag.Touch("kept");
  kept[0] = 2.5f;
  kept[1] = 3.5f;
  bag.Touch("kept");  // only the first touch keeps a copy
  untouched[0] = 9.0f;
  bag.Slot("made", {1}, DType::kF32, Reshard::kReplicated);
  bag.Rollback();
  EXPECT_EQ(kept[0], 1.5f);
  EXPECT_EQ(kept[1], 0.0f);
  EXPECT_EQ(untouched[0], 9.0f);
  EXPECT_EQ(bag.Find("made"), nullptr);
}

TEST(StateBag, CommitKeepsEverything) {
  StateBag bag;
  const auto slot = bag.Slot("s", {1}, DType::kF32, Reshard::kKeepMean).f32();
  bag.BeginJournal();
  bag.Touch("s");
  slot[0] = 4.0f;
  bag.CommitJournal();
  EXPECT_EQ(slot[0], 4.0f);
  bag.BeginJournal();  // an old journal does not leak into the next
  bag.Rollback();
  EXPECT_EQ(slot[0], 4.0f);
}

TEST(StateBag, ScopeJournalsWhatItHandsOut) {
  StateBag bag;
  const StateScope scope(&bag, "codec/w/");
  const auto q = scope.Slot("q", {2}, DType::kF32, Reshard::kReplicated).f32();
  q[0] = 1.0f;
  bag.BeginJournal();
  scope.Slot("q", {2}, DType::kF32, Reshard::kReplicated).f32()[0] = 7.0f;
  bag.Rollback();
  EXPECT_EQ(q[0], 1.0f);
  EXPECT_NE(bag.Find("codec/w/q"), nullptr);
}

TEST(StateBag, EmptyTensorsAreFine) {
  StateBag bag;
  EXPECT_EQ(bag.Slot("empty", {0, 4}, DType::kF32, Reshard::kKeepMean).numel, 0);
}

TEST(StateBagDeathTest, AShapeThatChangesIsABug) {
  StateBag bag;
  bag.Slot("s", {2}, DType::kF32, Reshard::kKeepMean);
  EXPECT_DEATH(bag.Slot("s", {3}, DType::kF32, Reshard::kKeepMean), "check failed");
}

TEST(StateBag, RestoredSlotThatDoesNotFitIsReplacedAndSaid) {
  StateBag bag;
  bag.Restore("codec/w/q", {4, 2}, DType::kF32, Reshard::kReplicated).f32()[0] = 1.0f;
  bag.Restore("codec/w/p", {3}, DType::kF32, Reshard::kReplicated).f32()[0] = 2.0f;

  bool created = true;
  EXPECT_EQ(bag.Slot("codec/w/p", {3}, DType::kF32, Reshard::kReplicated, &created).f32()[0], 2.0f);
  EXPECT_FALSE(created);
  EXPECT_TRUE(bag.mismatch().ok());

  const TensorView q = bag.Slot("codec/w/q", {4, 3}, DType::kF32, Reshard::kReplicated, &created);
  EXPECT_TRUE(created);
  EXPECT_EQ(q.numel, 12);
  EXPECT_EQ(q.f32()[0], 0.0f);
  EXPECT_EQ(FaultOf(bag.mismatch()), Fault::kData);
  EXPECT_NE(
      bag.mismatch().message().find("codec/w/q is fp32 [4, 2] in the checkpoint, fp32 [4, 3]"),
      absl::string_view::npos)
      << bag.mismatch();
}

TEST(StateBag, ARestoredSlotBelongsAsItsOwnerSays) {
  StateBag bag;
  bag.Restore("optimizer/w/m", {1}, DType::kF32, Reshard::kReplicated).f32()[0] = 1.0f;
  EXPECT_EQ(bag.Slot("optimizer/w/m", {1}, DType::kF32, Reshard::kKeepMean).f32()[0], 1.0f);
  EXPECT_EQ(bag.Find("optimizer/w/m")->reshard, Reshard::kKeepMean);
  EXPECT_TRUE(bag.mismatch().ok());
  bag.Restore("optimizer/w/v", {1}, DType::kF32, Reshard::kKeepMean);
  bag.Slot("optimizer/w/v", {1}, DType::kF32, Reshard::kReplicated);
  EXPECT_EQ(FaultOf(bag.mismatch()), Fault::kData);
  EXPECT_NE(bag.mismatch().message().find("optimizer/w/v is each rank's own"),
            absl::string_view::npos)
      << bag.mismatch();
}

TEST(StateBag, RestoredSlotsThatNobodyTakesOverAreNamed) {
  StateBag bag;
  EXPECT_TRUE(bag.Unclaimed("optimizer/").ok());
  bag.Restore("optimizer/w/m", {1}, DType::kF32, Reshard::kReplicated);
  bag.Restore("optimizer/w/v", {1}, DType::kF32, Reshard::kReplicated);
  bag.Restore("feedback/w/e", {1}, DType::kF32, Reshard::kKeepMean);
  bag.Slot("optimizer/w/m", {1}, DType::kF32, Reshard::kReplicated);
  bag.Slot("optimizer/w/new", {1}, DType::kF32, Reshard::kReplicated);
  EXPECT_EQ(FaultOf(bag.Unclaimed("optimizer/")), Fault::kData);
  EXPECT_NE(bag.Unclaimed("optimizer/").message().find("state optimizer/w/v is in the checkpoint"),
            absl::string_view::npos);
  bag.Slot("optimizer/w/v", {1}, DType::kF32, Reshard::kReplicated);
  EXPECT_TRUE(bag.Unclaimed("optimizer/").ok());
}

}  // namespace
}  // namespace tw
