// linear: a straight line from the full rate down to min_factor, after a linear warm-up.
//   factor = 1 - (1-min) * t,   t = (step-warmup) / (total-warmup)

#include "core/api/schedule.h"
#include "optim/schedule/warmup.h"

namespace tw {
namespace {

struct LinearConfig {
  int64_t warmup_steps = 100;
  double min_factor = 0;
  static FieldList<LinearConfig> Fields() {
    return FieldList<LinearConfig>()
        .Int("warmup_steps", &LinearConfig::warmup_steps, {0},
             "steps of linear rise to the full rate")
        .Real("min_factor", &LinearConfig::min_factor, {0, 1},
              "what is left of the rate at the end");
  }
};

class Linear : public Schedule {
 public:
  explicit Linear(const LinearConfig& config) : config_(config) {}
  double Factor(int64_t step, int64_t total_steps) const override {
    if (step < config_.warmup_steps) return WarmupFactor(step, config_.warmup_steps);
    return 1 - (1 - config_.min_factor) * Progress(step, config_.warmup_steps, total_steps);
  }

 private:
  LinearConfig config_;
};

StatusOr<std::unique_ptr<Schedule>> Create(const LinearConfig& config) {
  return std::make_unique<Linear>(config);
}

TW_REGISTER(Schedule, linear, 0, LinearConfig, Create,
            "warm-up, then a straight line down to min_factor");

}  // namespace
}  // namespace tw
