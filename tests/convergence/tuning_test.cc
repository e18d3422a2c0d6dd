#include "examples/convergence/problems/tuning.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/comm/thread_group.h"

namespace tw {
namespace {

TEST(Tuning, TakesTheBestAndSaysWhenItIsAtTheEdge) {
  const std::vector<double> grid = {1, 2, 3};
  const auto tuned = [&](std::vector<double> scores) {
    size_t i = 0;
    return TuneRate(grid, [&](double) -> StatusOr<double> { return scores[i++]; }).value();
  };
  EXPECT_EQ(tuned({3, 1, 2}).rate, 2);
  EXPECT_FALSE(tuned({3, 1, 2}).at_edge);
  EXPECT_TRUE(tuned({1, 1, 2}).at_edge);
  EXPECT_EQ(tuned({1, 1, 2}).rate, 1);
  const TunedRate some = tuned({INFINITY, 2, NAN});
  EXPECT_EQ(some.rate, 2);
  EXPECT_EQ(some.Note(3), "lr 2, 2 of 3 diverged");
  EXPECT_TRUE(std::isinf(tuned({INFINITY, NAN, INFINITY}).score));
}

TEST(Tuning, RunsOfATuningAreLabelledSo) {
  EXPECT_EQ(TuningLabel("SGD", 0.1), "SGD, tuning 0.1");
  EXPECT_EQ(TuningLabel("EF21, top-k 1 %", 0.1), "EF21, tuning 0.1 at top-k 1 %");
}

TEST(Tuning, MeansAreJudgedAndRunsThatDivergedNeverPass) {
  RunRanks(1, [](Communicator& comm) {
    LabContext lab({}, &comm, nullptr);
    const std::vector<double> a = {1, 3}, b = {2, 2}, lost = {INFINITY, 1};
    EXPECT_TRUE(MeanBelow(lab, "a", a, b, 1.01));
    EXPECT_EQ(lab.claims().back().measured, 1);
    EXPECT_EQ(lab.claims().back().values, (std::vector<double>{0.5, 1.5}));
    EXPECT_EQ(lab.claims().back().seeds, 2);
    EXPECT_TRUE(lab.claims().back().pass);
    EXPECT_FALSE(MeanBelow(lab, "b", a, b, 1));
    EXPECT_FALSE(MeanAbove(lab, "c", a, b, 1));
    EXPECT_FALSE(MeanBelow(lab, "d", lost, lost, 2));
    EXPECT_FALSE(MeanAbove(lab, "e", lost, lost, 0));
    EXPECT_FALSE(lab.claims().back().pass);
  });
}

}  // namespace
}  // namespace tw
