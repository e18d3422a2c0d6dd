// What planners decide from evidence made by hand.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "core/api/planner.h"

namespace tw {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::unique_ptr<Planner> Make(const std::string& name,
                              const std::vector<std::pair<std::string, FieldValue>>& keys = {}) {
  ConfigSection section;
  section.name = "planner";
  section.Set("name", name);
  for (const auto& [key, value] : keys) section.Set(key, value);
  auto made = Registry<Planner>::Get().Make(section, name);
  TW_CHECK_OK(made);
  return std::move(made).value();
}

Status Refusal(const std::string& name,
               const std::vector<std::pair<std::string, FieldValue>>& keys) {
  ConfigSection section;
  section.name = "planner";
  section.Set("name", name);
  for (const auto& [key, value] : keys) section.Set(key, value);
  return Registry<Planner>::Get().Make(section, name).status();
}

PlanMenu Menu(const std::vector<double>& knobs, double bytes, int configured) {
  PlanMenu menu;
  for (const double k : knobs) menu.options.push_back({"", nullptr, 0, k, k * bytes, false});
  menu.configured = configured;
  return menu;
}

struct Evidence : PlanEvidence {
  explicit Evidence(const Planner& planner, std::vector<PlanMenu> of) : owned(std::move(of)) {
    menus = owned;
    for (const PlanMenu& menu : owned) in_effect.push_back(planner.Initial(menu));
    numbers.assign(static_cast<size_t>(planner.MemorySize(owned)), 0.0);
    memory = numbers;
    chosen = in_effect;
    ranks = 2;
  }
  PlanDecision Round(const Planner& planner) {
    auto decision = planner.Decide(*this);
    TW_CHECK_OK(decision);
    in_effect = decision->choice;
    chosen = in_effect;
    return *decision;
  }
  std::vector<PlanMenu> owned;
  std::vector<int> in_effect;
  std::vector<double> numbers;
};

TEST(NoPlanner, NeverPlans) { EXPECT_EQ(Make("none")->schedule().every, 0); }

TEST(Warmup, FallsByEqualFactorsToTheConfiguredValue) {
  const auto planner = Make("warmup", {{"stages", int64_t{2}}, {"boost", 16.0}});
  EXPECT_TRUE(planner->wishes().knob);
  EXPECT_EQ(planner->wishes().most, 3);
  Evidence e(*planner, {Menu({1, 4, 16}, 100, 0), Menu({2, 3}, 100, 0)});
  EXPECT_THAT(e.in_effect, ElementsAre(2, 1));  // where the knob ends before, its largest
  EXPECT_THAT(e.Round(*planner).choice, ElementsAre(1, 1));
  EXPECT_THAT(e.Round(*planner).choice, ElementsAre(0, 0));
  EXPECT_THAT(e.Round(*planner).choice, ElementsAre(0, 0));
}

TEST(LGreco, GivesBytesToTheParameterWhoseErrorFallsFastest) {
  const auto planner = Make("lgreco");
  Evidence e(*planner, {Menu({1, 2, 4}, 100, 1), Menu({1, 2, 4}, 10, 1)});
  // Squares. A byte spent on the second parameter removes far more error.
  e.errors = {{4.41, 4, 3.61}, {4, 1, 0.01}};
  const PlanDecision d = e.Round(*planner);
  EXPECT_THAT(d.choice, ElementsAre(0, 2));
  EXPECT_LE(ErrorOf(e, d.choice), ErrorOf(e, std::vector<int>{1, 1}));
  EXPECT_LT(BytesOf(e.menus, d.choice), BytesOf(e.menus, std::vector<int>{1, 1}));
}

TEST(LGreco, MeasuresByNormSquareOrRelatively) {
  // The first parameter's errors are large; relatively it is the second one that loses more.
  std::vector<PlanMenu> menus = {Menu({1, 2, 4}, 10, 1), Menu({1, 2, 4}, 100, 1)};
  const auto choice = [&](const std::vector<std::pair<std::string, FieldValue>>& keys) {
    const auto planner = Make("lgreco", keys);
    Evidence e(*planner, menus);
    e.errors = {{400, 100, 25}, {2.25, 1, 0.25}};
    e.message_norms = {1e6, 4};
    return e.Round(*planner).choice;
  };
  EXPECT_THAT(choice({}), ElementsAre(2, 0));
  EXPECT_THAT(choice({{"norm", std::string("l2sq")}}), ElementsAre(2, 0));
  EXPECT_THAT(choice({{"relative", true}}), ElementsAre(1, 1));
}

TEST(LGreco, AlphaIsTheErrorAllowed) {
  const auto planner = Make("lgreco", {{"alpha", 3.0}});
  Evidence e(*planner, {Menu({1, 2, 4}, 100, 1)});
  e.errors = {{4, 1, 0.25}};
  EXPECT_THAT(e.Round(*planner).choice, ElementsAre(0));
  const auto strict = Make("lgreco", {{"alpha", 0.1}});
  Evidence f(*strict, {Menu({1, 2, 4}, 100, 1)});
  f.errors = {{4, 1, 0.25}};
  const PlanDecision d = f.Round(*strict);
  EXPECT_THAT(d.choice, ElementsAre(1));
  EXPECT_THAT(d.why, HasSubstr("no assignment"));
}

TEST(LGreco, AWindowMustFitBetweenTwoPlans) {
  const Status status = Refusal("lgreco", {{"every", int64_t{20}}, {"window", int64_t{17}}});
  EXPECT_EQ(ExitCode(status), 2);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at least window + 5"));
  EXPECT_TRUE(Refusal("lgreco", {{"every", int64_t{20}}, {"window", int64_t{15}}}).ok());
}

TEST(Accordion, SendsMoreWhileTheNormChanges) {
  const auto planner = Make("accordion", {{"eta", 0.5}, {"boost", 4.0}});
  Evidence e(*planner, {Menu({2, 8}, 10, 0), Menu({2, 8}, 10, 0), Menu({2, 8}, 10, 0)});
  EXPECT_THAT(e.in_effect, Each(1));  // the beginning is critical
  e.gradient_norms = {10, 10, 0};
  EXPECT_THAT(e.Round(*planner).choice, Each(1));  // nothing to compare with yet
  e.gradient_norms = {4, 6, 0};                    // changes of 0.6, 0.4 and none
  PlanDecision d = e.Round(*planner);
  EXPECT_THAT(d.choice, ElementsAre(1, 0, 0));
  EXPECT_THAT(d.why, HasSubstr("1 of 3 parameters are critical"));
  e.gradient_norms = {4, 9, 1};  // a growing one counts, one that was zero too
  EXPECT_THAT(e.Round(*planner).choice, ElementsAre(0, 1, 1));
}

TEST(Accordion, DistributesTheErrorOfItsLevels) {
  const auto planner = Make("accordion", {{"boost", 2.0}, {"distribute", true}});
  EXPECT_TRUE(planner->schedule().errors);
  EXPECT_EQ(planner->wishes().to, 4.0);
  Evidence e(*planner, {Menu({1, 2, 4}, 100, 1), Menu({1, 2, 4}, 10, 1)});
  EXPECT_THAT(e.in_effect, Each(2));
  e.errors = {{4.41, 4, 3.61}, {4, 1, 0.01}};
  e.gradient_norms = {1, 1};
  PlanDecision d = e.Round(*planner);  // both critical: the error of {2, 2} allows no less
  EXPECT_LE(ErrorOf(e, d.choice), ErrorOf(e, std::vector<int>{2, 2}));
  d = e.Round(*planner);  // calm: that of {1, 1}
  EXPECT_THAT(d.choice, ElementsAre(0, 2));
}

// Two parameters of one option each beside dense.
std::vector<PlanMenu> CompressOrNot() {
  std::vector<PlanMenu> menus(2);
  menus[0].options = {{"ratio 0.01", nullptr, 0, 0.01, 1e4, false},
                      {"dense", nullptr, 1, 0, 1e6, true}};
  menus[1].options = {{"ratio 0.01", nullptr, 0, 0.01, 1e3, false},
                      {"dense", nullptr, 1, 0, 2e3, true}};
  return menus;
}

// Steps of 100 ms arithmetic; nothing hidden; `rate` bytes a ms.
PlanTimes Times(const Evidence& e, double rate, double cost_ms) {
  PlanTimes t;
  t.wire_bytes = BytesOf(e.menus, e.chosen);
  t.exchange_ms = t.wire_bytes / rate;
  for (size_t m = 0; m < e.menus.size(); ++m) {
    if (!e.menus[m].options[static_cast<size_t>(e.chosen[m])].dense) t.encode_ms += cost_ms;
  }
  t.exposed_ms = t.encode_ms + t.exchange_ms;
  t.step_ms = 100 + t.exposed_ms;
  return t;
}

TEST(CostModel, SaysThatDenseIsFaster) {
  const auto planner = Make("cost_model");
  EXPECT_TRUE(planner->wishes().dense);
  Evidence e(*planner, CompressOrNot());
  e.cost_ms = {{20, 0}, {20, 0}};
  e.times = Times(e, 1e5, 20);  // a fast link: 10 ms dense, 40 ms of encoding
  PlanDecision d = e.Round(*planner);
  EXPECT_THAT(d.choice, Each(1));
  EXPECT_THAT(d.why, HasSubstr("now trying dense"));
  e.times = Times(e, 1e5, 20);
  d = e.Round(*planner);
  EXPECT_THAT(d.choice, Each(1));
  EXPECT_THAT(d.why, HasSubstr("dense is faster here"));
}

TEST(CostModel, DoesNotTryWhatIsHopelessAndSplitsBySize) {
  const auto planner = Make("cost_model");
  Evidence e(*planner, CompressOrNot());
  e.cost_ms = {{5, 0}, {5, 0}};
  e.times = Times(e, 1e3, 5);  // 1 MB/s: the large one would take a second dense
  PlanDecision d = e.Round(*planner);
  EXPECT_THAT(d.why, HasSubstr("dense is not tried"));
  EXPECT_THAT(d.choice, ElementsAre(0, 1));  // 5 + 1 ms to encode the small one, 2 ms dense
  EXPECT_THAT(d.why, HasSubstr("now trying mixed"));
  e.times = Times(e, 1e3, 5);
  d = e.Round(*planner);
  EXPECT_THAT(d.choice, ElementsAre(0, 1));
  EXPECT_THAT(d.why, HasSubstr("mixed is faster here"));

  // It stays while the link does, and tries again when it does not.
  e.times = Times(e, 1.5e3, 5);
  d = e.Round(*planner);
  EXPECT_THAT(d.choice, ElementsAre(0, 1));
  EXPECT_EQ(d.why, "");
  e.times = Times(e, 1e5, 5);
  EXPECT_EQ(e.Round(*planner).why, "");  // one look is not enough
  e.times = Times(e, 1e3, 5);
  EXPECT_EQ(e.Round(*planner).why, "");
  for (int look = 0; look < 2; ++look) {
    e.times = Times(e, 1e5, 5);
    d = e.Round(*planner);
  }
  EXPECT_THAT(d.why, HasSubstr("the link has changed"));
  EXPECT_THAT(d.choice, Each(0));
  e.times = Times(e, 1e5, 5);
  EXPECT_THAT(e.Round(*planner).choice, Each(1));
}

// What was measured before the first step says nothing of a link that has become slower since.
TEST(CostModel, JudgesDenseByTheLinkAsItIsNow) {
  const auto planner = Make("cost_model");
  Evidence e(*planner, CompressOrNot());
  e.cost_ms = {{20, 0}, {20, 0}};
  e.link_bytes_per_ms = 1e5;
  PlanDecision d;
  for (int trial = 0; trial < 2; ++trial) {
    e.times = Times(e, 1e5, 20);
    d = e.Round(*planner);
  }
  EXPECT_THAT(d.why, HasSubstr("dense is faster here"));
  for (int look = 0; look < 2; ++look) {
    e.times = Times(e, 1e3, 20);
    d = e.Round(*planner);
  }
  EXPECT_THAT(d.why, HasSubstr("the link has changed"));
  e.times = Times(e, 1e3, 20);
  EXPECT_THAT(e.Round(*planner).why, HasSubstr("dense is not tried"));
}

// An exchange of 0.1 ms that takes 1 ms is not a slow link but a late peer.
TEST(CostModel, ShortExchangesSayLittleOfTheLink) {
  const auto planner = Make("cost_model");
  Evidence e(*planner, CompressOrNot());
  e.cost_ms = {{0, 50}, {0, 50}};
  e.times = Times(e, 1e5, 0);
  e.Round(*planner);
  e.times = Times(e, 1e5, 0);
  PlanDecision d = e.Round(*planner);
  while (!d.why.empty()) {
    e.times = Times(e, 1e5, 0);
    d = e.Round(*planner);
  }
  for (int look = 0; look < 4; ++look) {
    e.times = Times(e, 1e4, 0);
    EXPECT_EQ(e.Round(*planner).why, "");
  }
}

TEST(CostModel, OfEqualSettingsTakesTheOneThatLosesLeast) {
  const auto planner = Make("cost_model", {{"margin", 0.05}});
  Evidence e(*planner, CompressOrNot());
  e.cost_ms = {{1, 0}, {1, 0}};
  e.times = Times(e, 1e6, 1);  // 102.01 ms
  EXPECT_THAT(e.Round(*planner).choice, Each(1));
  e.times = Times(e, 1e6, 1);
  e.times.step_ms = 105;  // slower, by less than the margin
  const PlanDecision d = e.Round(*planner);
  EXPECT_THAT(d.choice, Each(1));
  EXPECT_THAT(d.why, HasSubstr("dense is as fast as any here"));
}

TEST(CostModel, ALinkMeasuredAloneIsBelievedWhereTrialsWaitForPeers) {
  const auto planner = Make("cost_model");
  Evidence e(*planner, CompressOrNot());
  e.cost_ms = {{1, 0}, {1, 0}};
  e.times = Times(e, 1e3, 1);  // dense would take a second
  e.link_bytes_per_ms = 1e5;   // 10 ms
  EXPECT_THAT(e.Round(*planner).why, HasSubstr("now trying dense"));
}

TEST(CostModel, TriesTheKnobIfAsked) {
  const auto planner = Make("cost_model", {{"levels", true}});
  EXPECT_THAT(planner->wishes().also, ElementsAre(0.5, 2.0));
  PlanMenu menu = Menu({2, 4, 8}, 1e4, 1);
  menu.options.push_back({"dense", nullptr, 1, 0, 1e6, true});
  Evidence e(*planner, {menu});
  e.cost_ms = {{1, 1, 1, 0}};
  e.times = Times(e, 1e3, 1);
  EXPECT_THAT(e.Round(*planner).choice, ElementsAre(0));
  e.times = Times(e, 1e3, 1);
  EXPECT_THAT(e.Round(*planner).choice, ElementsAre(2));
  e.times = Times(e, 1e3, 1);
  const PlanDecision d = e.Round(*planner);
  EXPECT_THAT(d.choice, ElementsAre(0));
  EXPECT_THAT(d.why, HasSubstr("smallest knob is faster here"));
}

}  // namespace
}  // namespace tw
