// cosine: half a cosine from the full rate down to min_factor (SGDR without restarts; Loshchilov &
// Hutter, arXiv 1608.03983), after a linear warm-up.
//   factor = min + (1-min) * (1 + cos(pi*t)) / 2,   t = (step-warmup) / (total-warmup)
// Left out: restarts.

#include <cmath>
#include <numbers>

#include "core/api/schedule.h"
#include "optim/schedule/warmup.h"

namespace tw {
namespace {

struct CosineConfig {
  int64_t warmup_steps = 100;
  double min_factor = 0.1;
  static FieldList<CosineConfig> Fields() {
    return FieldList<CosineConfig>()
        .Int("warmup_steps", &CosineConfig::warmup_steps, {0},
             "steps of linear rise to the full rate")
        .Real("min_factor", &CosineConfig::min_factor, {0, 1},
              "what is left of the rate at the end");
  }
};

class Cosine : public Schedule {
 public:
  explicit Cosine(const CosineConfig& config) : config_(config) {}
  double Factor(int64_t step, int64_t total_steps) const override {
    if (step < config_.warmup_steps) return WarmupFactor(step, config_.warmup_steps);
    const double t = Progress(step, config_.warmup_steps, total_steps);
    return config_.min_factor +
           (1 - config_.min_factor) * 0.5 * (1 + std::cos(std::numbers::pi * t));
  }

 private:
  CosineConfig config_;
};

StatusOr<std::unique_ptr<Schedule>> Create(const CosineConfig& config) {
  return std::make_unique<Cosine>(config);
}

TW_REGISTER(Schedule, cosine, 0, CosineConfig, Create,
            "warm-up, then half a cosine down to min_factor");

}  // namespace
}  // namespace tw
