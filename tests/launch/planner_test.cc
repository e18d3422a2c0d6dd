// Planners in the engine, end to end: two ranks of the thread communicator, menus from a config.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "core/engine/plan_updater.h"
#include "launch/compose.h"
#include "launch/menus.h"
#include "tests/core/engine/reducer_rank.h"

namespace tw {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// One rank that trains the tied model with a planner.
class PlannedRank {
 public:
  PlannedRank(Communicator& comm, const std::vector<std::string>& overrides) : comm_(comm) {
    at::set_num_threads(1);
    for (const std::string& o : overrides) TW_CHECK_OK(config_.Override(o));
    const ConfigSection& section = config_.section("compressor");
    Keys keys;
    for (const auto& [key, value] : section.values) {
      if (key != "name") keys.emplace_back(key, value.value);
    }
    options_ = routes_.Options(comm.size());
    PlanRule rule;
    rule.route = routes_.Make(section.GetString("name", "none"),
                              config_.section("feedback").GetString("name", "ef14"), keys);
    rule.min_numel = 100;
    options_.rules = {rule};
    auto plan = Plan::Build(SpecsOf(model.parameters()), options_);
    TW_CHECK_OK(plan);
    plan_ = std::make_unique<Plan>(std::move(plan).value());
    auto planner = Registry<Planner>::Get().Make(config_.section("planner"), "none");
    TW_CHECK_OK(planner);
    planner_ = std::move(planner).value();
    auto menus = MakeMenus(config_, "test", planner_->wishes(), *plan_, options_);
    TW_CHECK_OK(menus);
    menus_ = std::move(menus).value();
    lane = std::make_unique<Lane>();
    reducer_ = std::make_unique<GradientReducer>(model.parameters(), plan_.get(), &comm, lane.get(),
                                                 &bag, ReducerOptions{1, true, 5});
  }

  // As the trainer does; with a bag restored before, the run that goes on.
  void Run(int64_t first, int64_t last, int64_t poisoned = -1) {
    auto made = PlanUpdater::Create(
        {planner_.get(), "test", &menus_.choices, plan_.get(), &bag, &comm_, lane.get(), 5}, first);
    TW_CHECK_OK(made);
    updater = std::move(made).value();
    reducer_->set_observer(updater.get());
    for (int64_t step = first; step < last; ++step) {
      reducer_->ZeroGradients();
      at::Tensor loss = model.Loss(comm_.rank(), static_cast<uint64_t>(step));
      if (step == poisoned && comm_.rank() == 0) {
        loss = loss + model.w1.flatten()[3] * std::numeric_limits<float>::infinity();
      }
      reducer_->Arm(static_cast<uint64_t>(step));
      loss.backward();
      double sums[] = {1.0};
      const auto outcome = reducer_->Finish(sums);
      TW_CHECK_OK(outcome);
      if (outcome->finite) Descend();
      wire_bytes.push_back(outcome->wire_bytes);
      StepRecord record;
      record.step = step + 1;
      record.skipped = !outcome->finite;
      record.step_ms = 10;
      TW_CHECK_OK(updater->EndStep(record));
    }
    // As for a checkpoint: what was posted is done.
    TW_CHECK_OK(lane->Wait());
  }

  void CopyTo(PlannedRank& other) const {
    bag.ForEach([&](const std::string& name, const StateSlot& slot) {
      const TensorView to = other.bag.Restore(name, slot.shape, slot.view.dtype, slot.reshard);
      std::memcpy(to.data, slot.view.data, static_cast<size_t>(slot.view.bytes()));
    });
    at::NoGradGuard no_grad;
    const auto from = model.parameters(), to = other.model.parameters();
    for (size_t i = 0; i < from.size(); ++i) to[i].second.copy_(from[i].second);
  }

  std::vector<std::string> Options() const {
    std::vector<std::string> out;
    for (const ParameterPlan& p : plan_->parameters()) out.push_back(p.option);
    return out;
  }
  uint64_t Bits() const {
    Hasher hasher;
    for (const ParameterView& view : reducer_->views()) hasher.Add(view.value.raw());
    return hasher.digest();
  }
  const Plan& plan() const { return *plan_; }
  const PlanChoices& choices() const { return menus_.choices; }

  TiedModel model;
  StateBag bag;
  std::unique_ptr<Lane> lane;
  std::vector<int64_t> wire_bytes;
  std::unique_ptr<PlanUpdater> updater;

 private:
  void Descend() {
    at::NoGradGuard no_grad;
    for (auto& [name, parameter] : model.parameters()) parameter.sub_(parameter.grad(), 0.2);
  }

  Communicator& comm_;
  Config config_;
  RouteMaker routes_;
  PlanOptions options_;
  std::unique_ptr<Plan> plan_;
  std::unique_ptr<Planner> planner_;
  MadeMenus menus_;
  std::unique_ptr<GradientReducer> reducer_;
};

const std::vector<std::vector<std::string>>& Families() {
  static const auto* families = new std::vector<std::vector<std::string>>{
      {"compressor.name=powersgd", "compressor.rank=3"},
      {"compressor.name=topk", "compressor.ratio=0.05"},
      {"compressor.name=blockquant", "compressor.bits=4", "compressor.block=16"}};
  return *families;
}

std::vector<std::string> With(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

const std::vector<std::string> kLGreco = {"planner.name=lgreco", "planner.every=10",
                                          "planner.window=4"};

TEST(LGrecoInTheEngine, SendsNoMoreThanUniformAtNoMoreError) {
  for (const auto& family : Families()) {
    std::map<int, std::vector<std::string>> options;
    std::mutex mutex;
    RunRanks(2, [&](Communicator& comm) {
      PlannedRank rank(comm, With(family, kLGreco));
      rank.Run(0, 36);
      EXPECT_EQ(rank.updater->num_rounds(), 3);
      const PlanRound& round = rank.updater->last_round();
      EXPECT_LE(round.bytes_after, round.bytes_configured);
      EXPECT_LE(round.error_after, round.error_configured * (1 + 1e-9));
      EXPECT_GT(round.error_after, 0);
      const std::lock_guard lock(mutex);
      options[comm.rank()] = rank.Options();
    });
    EXPECT_EQ(options[0], options[1]);
    EXPECT_NE(std::set<std::string>(options[0].begin(), options[0].end()).size(), 1u);
  }
}

TEST(LGrecoInTheEngine, AllRanksStayAlikeAndResumeAnywhereInARound) {
  for (const auto& family : Families()) {
    RunRanks(2, [&](Communicator& comm) {
      PlannedRank whole(comm, With(family, kLGreco));
      whole.Run(0, 40);
      TW_CHECK_OK(comm.Agree(whole.Bits(), "parameters"));
      // In a window, at a round, between slices, with a plan decided and not in effect, after it.
      for (const int64_t at : {8, 10, 12, 13, 14, 15}) {
        PlannedRank first(comm, With(family, kLGreco));
        first.Run(0, at);
        PlannedRank second(comm, With(family, kLGreco));
        first.CopyTo(second);
        second.Run(at, 40);
        EXPECT_EQ(second.Bits(), whole.Bits()) << family[0] << ", resumed after step " << at;
        EXPECT_EQ(second.Options(), whole.Options());
      }
    });
  }
}

TEST(LGrecoInTheEngine, ASkippedStepOfAWindowLeavesNoTrace) {
  RunRanks(2, [&](Communicator& comm) {
    PlannedRank rank(comm, With(Families()[0], kLGreco));
    rank.Run(0, 8, /*poisoned=*/7);
    PlannedRank same(comm, With(Families()[0], kLGreco));
    same.Run(0, 7);
    const auto sum = [](const PlannedRank& r) {
      const auto view = r.bag.Find("planner/w1/message")->view.f32();
      return std::vector<float>(view.begin(), view.end());
    };
    EXPECT_EQ(sum(rank), sum(same));
    EXPECT_NE(sum(rank), std::vector<float>(sum(rank).size(), 0.0f));
  });
}

TEST(LGrecoInTheEngine, MixesFamilies) {
  RunRanks(2, [&](Communicator& comm) {
    PlannedRank rank(comm, With({"compressor.name=topk", "compressor.ratio=0.05",
                                 "planner.mixed=[\"powersgd\", \"blockquant\", \"sign\"]"},
                                kLGreco));
    std::set<std::string> names;
    for (const PlanOption& option : rank.choices().menus[1].options) {
      names.insert(option.label.substr(0, option.label.find(' ')));
    }
    EXPECT_EQ(names, (std::set<std::string>{"topk", "powersgd", "blockquant", "sign"}));
    rank.Run(0, 36);
    EXPECT_LT(rank.updater->last_round().bytes_after, rank.updater->last_round().bytes_configured);
    TW_CHECK_OK(comm.Agree(rank.Bits(), "parameters"));
  });
}

TEST(AccordionInTheEngine, StartsCriticalAndCalmsDown) {
  RunRanks(2, [&](Communicator& comm) {
    PlannedRank rank(
        comm, {"compressor.name=powersgd", "compressor.rank=1", "planner.name=accordion",
               "planner.every=10", "planner.window=4", "planner.boost=3", "planner.eta=1000"});
    rank.Run(0, 1);
    EXPECT_THAT(rank.Options(), ElementsAre("rank 3", "rank 3", "", "rank 3", "rank 3"));
    PlannedRank calm(
        comm, {"compressor.name=powersgd", "compressor.rank=1", "planner.name=accordion",
               "planner.every=10", "planner.window=4", "planner.boost=3", "planner.eta=1000"});
    calm.Run(0, 30);
    EXPECT_THAT(calm.Options(), ElementsAre("rank 1", "rank 1", "", "rank 1", "rank 1"));
    EXPECT_LT(calm.wire_bytes.back(), calm.wire_bytes[5]);
    TW_CHECK_OK(comm.Agree(calm.Bits(), "parameters"));
  });
}

TEST(CostModelInTheEngine, DenseSendsTheErrorMemoryAndThenTheGradientAlone) {
  RunRanks(2, [&](Communicator& comm) {
    PlannedRank rank(comm,
                     {"compressor.name=topk", "compressor.ratio=0.05", "planner.name=cost_model",
                      "planner.trial_steps=5", "planner.hopeless=1000000"});
    rank.Run(0, 6);  // configured for five steps, one more until the change is in effect
    const auto error = [&] {
      double sum = 0;
      for (const float x : rank.bag.Find("feedback/w1/e")->view.f32()) sum += std::abs(x);
      return sum;
    };
    EXPECT_THAT(rank.Options(), ElementsAre("dense", "dense", "", "dense", "dense"));
    EXPECT_TRUE(rank.plan().parameters()[1].compressed);  // once more through its feedback
    EXPECT_GT(error(), 0);
    rank.Run(6, 7);
    EXPECT_EQ(error(), 0);
    EXPECT_FALSE(rank.plan().parameters()[1].compressed);
    EXPECT_EQ(rank.plan().parameters()[1].route.feedback, "none");
    rank.Run(7, 8);
    TW_CHECK_OK(comm.Agree(rank.Bits(), "parameters"));
  });
}

TEST(CostModelInTheEngine, FeedbackThatKeepsEstimatesIsNotPassedBy) {
  RunRanks(2, [&](Communicator& comm) {
    PlannedRank rank(
        comm, {"compressor.name=topk", "compressor.ratio=0.05", "feedback.name=ef21",
               "planner.name=cost_model", "planner.trial_steps=5", "planner.hopeless=1000000"});
    rank.Run(0, 9);
    EXPECT_EQ(rank.plan().parameters()[1].option, "dense");
    EXPECT_EQ(rank.plan().parameters()[1].route.feedback, "ef21");
    EXPECT_TRUE(rank.plan().parameters()[1].compressed);
    TW_CHECK_OK(comm.Agree(rank.Bits(), "parameters"));
  });
}

TEST(PlannerState, OtherMenusThanTheCheckpointsAreRefused) {
  RunRanks(1, [&](Communicator& comm) {
    PlannedRank first(comm, With(Families()[0], kLGreco));
    first.Run(0, 3);
    PlannedRank second(comm, With(Families()[0], With(kLGreco, {"planner.beta=4"})));
    first.CopyTo(second);
    auto planner = Registry<Planner>::Get().Find("lgreco")->make(ConfigSection{});
    Plan plan = second.plan();
    const auto made = PlanUpdater::Create({planner->get(), "lgreco", &second.choices(), &plan,
                                           &second.bag, &comm, second.lane.get(), 5},
                                          3);
    EXPECT_EQ(ExitCode(made.status()), 3);
    EXPECT_THAT(std::string(made.status().message()), HasSubstr("[planner]"));
  });
}

Status AssembleWith(const std::vector<std::string>& own, std::vector<std::string>* warnings) {
  std::vector<std::string> overrides = {"data.path=synthetic", "model.layers=1", "model.width=32",
                                        "model.heads=2", "compressor.min_numel=512"};
  auto loaded = LoadedConfig::Load("", With(overrides, own));
  if (!loaded.ok()) return loaded.status();
  auto assembled = Assemble(*loaded, 0, 2);
  if (assembled.ok() && warnings) *warnings = (*assembled)->warnings;
  return assembled.status();
}

TEST(PlannerConfig, ACompressorWithoutAKnobIsRefusedByNamingThoseThatHaveOne) {
  for (const char* planner : {"planner.name=lgreco", "planner.name=accordion"}) {
    const Status status = AssembleWith({"compressor.name=sign", planner}, nullptr);
    EXPECT_EQ(ExitCode(status), 2);
    const std::string message(status.message());
    for (const char* word : {"sign", "blockquant (bits)", "powersgd (rank)", "topk (ratio)"}) {
      EXPECT_THAT(message, HasSubstr(word));
    }
  }
  EXPECT_TRUE(AssembleWith({"compressor.name=topk", "planner.name=lgreco"}, nullptr).ok());
}

TEST(PlannerConfig, APlannerWithNothingToChooseSaysSo) {
  std::vector<std::string> warnings;
  ASSERT_TRUE(AssembleWith({"planner.name=cost_model"}, &warnings).ok());
  EXPECT_THAT(warnings, ::testing::Contains(HasSubstr("planner cost_model does nothing")));
}

TEST(PlannerConfig, AFamilyThatIsNotKnownIsRefused) {
  const Status status = AssembleWith(
      {"compressor.name=topk", "planner.name=lgreco", "planner.mixed=[\"topp\"]"}, nullptr);
  EXPECT_EQ(ExitCode(status), 2);
  EXPECT_THAT(std::string(status.message()), HasSubstr("did you mean topk"));
}

}  // namespace
}  // namespace tw
