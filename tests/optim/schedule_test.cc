#include "core/api/schedule.h"

#include <cmath>
#include <numbers>

#include "gtest/gtest.h"

namespace tw {
namespace {

std::unique_ptr<Schedule> Make(const std::string& name,
                               const std::vector<std::pair<std::string, FieldValue>>& keys) {
  ConfigSection section;
  section.name = "schedule";
  section.Set("name", name);
  for (const auto& [key, value] : keys) section.Set(key, value);
  auto made = Registry<Schedule>::Get().Make(section, name);
  TW_CHECK_OK(made);
  return std::move(made).value();
}

TEST(Constant, IsOneFromTheFirstStep) {
  const auto schedule = Make("constant", {});
  for (const int64_t step : {0, 1, 99}) EXPECT_EQ(schedule->Factor(step, 100), 1.0);
}

TEST(Cosine, FallsFromOneToItsMinimum) {
  const auto schedule = Make("cosine", {{"warmup_steps", int64_t{10}}, {"min_factor", 0.2}});
  EXPECT_DOUBLE_EQ(schedule->Factor(9, 110), 1.0);
  EXPECT_DOUBLE_EQ(schedule->Factor(10, 110), 1.0);
  EXPECT_DOUBLE_EQ(schedule->Factor(35, 110), 0.2 + 0.4 * (1 + std::cos(std::numbers::pi / 4)));
  EXPECT_DOUBLE_EQ(schedule->Factor(60, 110), 0.6);
  EXPECT_NEAR(schedule->Factor(109, 110), 0.2, 3e-4);
  EXPECT_GT(schedule->Factor(109, 110), 0.2);
}

TEST(Linear, FallsInAStraightLine) {
  const auto schedule = Make("linear", {{"warmup_steps", int64_t{0}}, {"min_factor", 0.1}});
  EXPECT_EQ(schedule->Factor(0, 10), 1.0);
  for (int64_t step = 0; step + 1 < 10; ++step) {
    EXPECT_NEAR(schedule->Factor(step, 10) - schedule->Factor(step + 1, 10), 0.09, 1e-12);
  }
  EXPECT_NEAR(schedule->Factor(9, 10), 0.19, 1e-12);
}

TEST(Wsd, IsStableUntilItsDecay) {
  const auto schedule = Make("wsd", {{"warmup_steps", int64_t{10}}, {"decay_fraction", 0.2}});
  EXPECT_EQ(schedule->Factor(10, 100), 1.0);
  EXPECT_EQ(schedule->Factor(80, 100), 1.0);
  EXPECT_NEAR(schedule->Factor(81, 100), 0.95, 1e-12);
  EXPECT_NEAR(schedule->Factor(99, 100), 0.05, 1e-12);
}

TEST(Wsd, NeverDecaysInsideTheWarmup) {
  const auto schedule = Make("wsd", {{"warmup_steps", int64_t{10}}, {"decay_fraction", 1.0}});
  EXPECT_NEAR(schedule->Factor(8, 20), 0.9, 1e-12);
  EXPECT_EQ(schedule->Factor(10, 20), 1.0);
  EXPECT_NEAR(schedule->Factor(15, 20), 0.5, 1e-12);
}

TEST(Wsd, WithoutDecayIsConstant) {
  const auto schedule = Make("wsd", {{"warmup_steps", int64_t{0}}, {"decay_fraction", 0.0}});
  EXPECT_EQ(schedule->Factor(0, 7), 1.0);
  EXPECT_EQ(schedule->Factor(6, 7), 1.0);
}

TEST(EverySchedule, RisesOverTheWarmup) {
  for (const std::string& name : Registry<Schedule>::Get().names()) {
    const auto schedule = Make(name, {{"warmup_steps", int64_t{4}}});
    for (int64_t step = 0; step < 4; ++step) {
      EXPECT_DOUBLE_EQ(schedule->Factor(step, 1000), 0.25 * static_cast<double>(step + 1)) << name;
    }
  }
}

TEST(EverySchedule, KeepsRisingWhenTheRunEndsInTheWarmup) {
  for (const std::string& name : Registry<Schedule>::Get().names()) {
    for (const int64_t warmup : {10, 20}) {
      const auto schedule = Make(name, {{"warmup_steps", warmup}});
      for (int64_t step = 0; step < 10; ++step) {
        EXPECT_DOUBLE_EQ(schedule->Factor(step, 10),
                         static_cast<double>(step + 1) / static_cast<double>(warmup))
            << name;
      }
    }
  }
}

TEST(EverySchedule, StaysWithinZeroAndOne) {
  for (const std::string& name : Registry<Schedule>::Get().names()) {
    for (const int64_t warmup : {0, 1, 3, 50}) {
      for (const int64_t total : {1, 2, 7, 100}) {
        const auto schedule = Make(name, {{"warmup_steps", warmup}});
        for (int64_t step = 0; step < total; ++step) {
          const double factor = schedule->Factor(step, total);
          EXPECT_TRUE(factor > 0 && factor <= 1) << name << " " << step << " of " << total;
        }
      }
    }
  }
}

TEST(EverySchedule, RefusesANegativeWarmup) {
  for (const std::string& name : Registry<Schedule>::Get().names()) {
    ConfigSection section;
    section.name = "schedule";
    section.Set("warmup_steps", int64_t{-1});
    EXPECT_FALSE(Registry<Schedule>::Get().Find(name)->make(section).ok()) << name;
  }
}

}  // namespace
}  // namespace tw
