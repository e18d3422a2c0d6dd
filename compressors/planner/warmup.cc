// warmup: a compressor's knob falls from a multiple of the configured value to that value, in
// stages, as the ratio of Deep Gradient Compression does (Lin et al., arXiv 1712.01887: 25, 6.25,
// 1.56, 0.4, 0.1 % over four epochs).
//   stage s = steps done / every, S = number of stages
//   knob of stage s = configured * boost^((S - s) / S), as near as the menu has it;  s >= S:
//   configured
// Nothing is measured. State: the number of stages done.

#include <algorithm>
#include <cmath>

#include "core/api/planner.h"

namespace tw {
namespace {

struct WarmupConfig {
  int64_t every = 100;
  int64_t stages = 4;
  double boost = 25;
  static FieldList<WarmupConfig> Fields() {
    return FieldList<WarmupConfig>()
        .Int("every", &WarmupConfig::every, {kPlanDelay + 2, int64_t{1} << 40}, "steps of a stage")
        .Int("stages", &WarmupConfig::stages, {1, 64}, "stages before the configured value")
        .Real("boost", &WarmupConfig::boost, {1, 1e6},
              "ratio, rank or bits of the first stage, as a multiple of the configured one");
  }
};

class Warmup : public Planner {
 public:
  explicit Warmup(const WarmupConfig& config) : config_(config) {}
  static StatusOr<std::unique_ptr<Planner>> Create(const WarmupConfig& config) {
    return std::make_unique<Warmup>(config);
  }

  PlanWishes wishes() const override {
    return {.knob = true, .to = config_.boost, .most = config_.stages + 1};
  }
  PlanSchedule schedule() const override { return {.every = config_.every}; }
  int64_t MemorySize(std::span<const PlanMenu>) const override { return 1; }
  int Initial(const PlanMenu& menu) const override { return At(menu, 0); }
  StatusOr<PlanDecision> Decide(const PlanEvidence& evidence) const override {
    PlanDecision decision;
    const auto stage = static_cast<int64_t>(++evidence.memory[0]);
    for (const PlanMenu& menu : evidence.menus) {
      decision.choice.push_back(At(menu, stage));
    }
    return decision;
  }

 private:
  // The option nearest to the stage's value, by ratio.
  int At(const PlanMenu& menu, int64_t stage) const {
    if (stage >= config_.stages) return menu.configured;
    const double left = static_cast<double>(config_.stages - stage);
    const double wanted = menu.options[static_cast<size_t>(menu.configured)].knob *
                          std::pow(config_.boost, left / static_cast<double>(config_.stages));
    const auto distance = [&](const PlanOption& option) {
      return std::abs(std::log(option.knob / wanted));
    };
    const auto nearest =
        std::min_element(menu.options.begin(), menu.options.end(),
                         [&](const auto& a, const auto& b) { return distance(a) < distance(b); });
    return static_cast<int>(nearest - menu.options.begin());
  }

  WarmupConfig config_;
};

TW_REGISTER(Planner, warmup, 0, WarmupConfig, Warmup::Create,
            "the knob falls in stages from a multiple of the configured value to it");

}  // namespace
}  // namespace tw
