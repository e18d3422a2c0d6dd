#include "core/engine/two_level.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/engine/two_level_estimates.h"

namespace tw {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Gradients = TwoLevelGradients;

TEST(TwoLevel, GivesTheMeanOverAllRanksForGroupsOfAnySizes) {
  for (const std::vector<int>& group_of :
       std::vector<std::vector<int>>{{0, 0, 1, 1}, {0, 1, 0, 1}, {0, 0, 0, 1}, {0, 1, 1}, {0, 1}}) {
    const auto all = TwoLevelEstimates({.group_of = group_of}, 1);
    for (size_t p = 0; p < 3; ++p) {
      const TensorSpec spec = TwoLevelSpecs()[p];
      for (int64_t i = 0; i < spec.numel(); ++i) {
        double mean = 0;
        for (size_t r = 0; r < all.size(); ++r) {
          mean += TestValue(static_cast<int>(r), spec.id, i) / static_cast<double>(all.size());
        }
        ASSERT_NEAR(all[0][p][static_cast<size_t>(i)], mean, 1e-6);
      }
    }
  }
}

TEST(TwoLevel, AllRanksHoldTheSameBitsWhateverTheBuckets) {
  for (TwoLevelCase& setup : TwoLevelCases({0, 1, 0, 1})) {
    const auto all = TwoLevelEstimates(setup, 3);
    for (const Gradients& grads : all) EXPECT_EQ(grads, all[0]) << setup.compressor;
    setup.one_bucket = false;
    EXPECT_EQ(TwoLevelEstimates(setup, 3)[0], all[0]) << setup.compressor;
  }
}

// Where every rank of a group holds the group's mean already, the groups are the ranks of a flat
// exchange: the same bits, feedback and random numbers included.
TEST(TwoLevel, IsTheFlatExchangeOfTheGroupMeans) {
  for (const std::string compressor : {"topk", "natural"}) {
    std::vector<Gradients> flat(2);
    const uint64_t steps = 3;
    const auto run = [&](Communicator& comm, const std::vector<int>& group_of) {
      RouteMaker routes;
      PlanOptions options = routes.Options(2);
      PlanRule rule;
      rule.route = routes.Make(compressor, "ef14");
      rule.min_numel = 10;
      options.rules = {rule};
      auto plan = Plan::Build(TwoLevelSpecs(), options);
      TW_CHECK_OK(plan);
      StateBag state;
      const int parameters[] = {0, 1, 2};
      BucketPipeline pipeline(&*plan, &comm, {5, &state});
      std::unique_ptr<TwoLevel> two_level;
      if (!group_of.empty()) {
        auto made = TwoLevel::Create(&*plan, &comm, group_of, {5, &state});
        TW_CHECK_OK(made);
        two_level = std::move(*made);
      }
      Gradients grads;
      for (uint64_t step = 0; step < steps; ++step) {
        grads.clear();
        std::vector<TensorView> views;
        const int group = group_of.empty() ? comm.rank() : comm.rank() / 2;
        for (const TensorSpec& spec : TwoLevelSpecs()) grads.push_back(TestMessage(group, spec));
        for (auto& grad : grads) views.push_back(ViewOf(grad));
        TW_CHECK_OK(RunBlocking(two_level ? two_level->Start(0, step, parameters, views)
                                          : pipeline.Start(0, step, parameters, views)));
      }
      return grads;
    };
    RunRanks(2,
             [&](Communicator& comm) { flat[static_cast<size_t>(comm.rank())] = run(comm, {}); });
    RunRanks(4, [&](Communicator& comm) {
      EXPECT_EQ(run(comm, {0, 0, 1, 1}), flat[0]) << compressor;
    });
  }
}

TEST(TwoLevel, CountsWhatLeavesTheGroup) {
  RunRanks(4, [](Communicator& comm) {
    RouteMaker routes;
    PlanOptions options = routes.Options(2);
    options.rules = {{.route = options.dense}};
    auto plan = Plan::Build({TestSpec(0, {100})}, options);
    TW_CHECK_OK(plan);
    StateBag state;
    auto two_level = TwoLevel::Create(&*plan, &comm, {0, 0, 1, 1}, {5, &state});
    TW_CHECK_OK(two_level);
    std::vector<float> grad(100, 1.0f);
    const TensorView view = ViewOf(grad);
    const int parameter = 0;
    TW_CHECK_OK(RunBlocking((*two_level)->Start(0, 0, {&parameter, 1}, {&view, 1})));
    EXPECT_EQ((*two_level)->bytes_sent(), comm.rank() % 2 == 0 ? 400 : 0);  // 2 b (G-1)/G
  });
}

TEST(NumberGroups, ByFirstRanks) {
  EXPECT_THAT(NumberGroups({7, 3, 7, 9}), ElementsAre(0, 1, 0, 2));
  EXPECT_EQ(CountGroups({0, 1, 0, 2}), 3);
}

TEST(KeepGrouping, ARunGoesOnWithTheGroupsItHad) {
  StateBag state;
  ASSERT_TRUE(KeepGrouping(&state, {0, 0, 1, 1}, false).ok());
  EXPECT_TRUE(KeepGrouping(&state, {0, 0, 1, 1}, true).ok());
  for (const std::vector<int>& other :
       std::vector<std::vector<int>>{{}, {0, 1, 0, 1}, {0, 0, 1, 1, 2}}) {
    const Status refused = KeepGrouping(&state, other, true);
    EXPECT_EQ(ExitCode(refused), 3);
    EXPECT_THAT(std::string(refused.message()), HasSubstr("4 ranks in 2 groups"));
  }
  StateBag flat;
  ASSERT_TRUE(KeepGrouping(&flat, {}, false).ok());
  EXPECT_TRUE(KeepGrouping(&flat, {}, true).ok());
  EXPECT_EQ(ExitCode(KeepGrouping(&flat, {0, 0, 1, 1}, true)), 3);
}

}  // namespace
}  // namespace tw
