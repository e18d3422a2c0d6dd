// wsd: warm-up, stable, decay (MiniCPM, arXiv 2404.06395; the straight-line decay of Haegele et
// al., arXiv 2405.18392). A stable stretch can be prolonged without having known the total before.
//   factor = 1 until total - decay, then 1 - (1-min) * t,   decay = round(decay_fraction * total)
// The decay never begins inside the warm-up. Left out: the exponential and the 1-sqrt decay.

#include <algorithm>
#include <cmath>

#include "core/api/schedule.h"
#include "optim/schedule/warmup.h"

namespace tw {
namespace {

struct WsdConfig {
  int64_t warmup_steps = 100;
  double decay_fraction = 0.2;
  double min_factor = 0;
  static FieldList<WsdConfig> Fields() {
    return FieldList<WsdConfig>()
        .Int("warmup_steps", &WsdConfig::warmup_steps, {0}, "steps of linear rise to the full rate")
        .Real("decay_fraction", &WsdConfig::decay_fraction, {0, 1},
              "part of all steps over which the rate falls at the end")
        .Real("min_factor", &WsdConfig::min_factor, {0, 1}, "what is left of the rate at the end");
  }
};

class Wsd : public Schedule {
 public:
  explicit Wsd(const WsdConfig& config) : config_(config) {}
  double Factor(int64_t step, int64_t total_steps) const override {
    if (step < config_.warmup_steps) return WarmupFactor(step, config_.warmup_steps);
    const int64_t decay_steps =
        std::llround(config_.decay_fraction * static_cast<double>(total_steps));
    const int64_t begin = std::max(config_.warmup_steps, total_steps - decay_steps);
    return 1 - (1 - config_.min_factor) * Progress(step, begin, total_steps);
  }

 private:
  WsdConfig config_;
};

StatusOr<std::unique_ptr<Schedule>> Create(const WsdConfig& config) {
  return std::make_unique<Wsd>(config);
}

TW_REGISTER(Schedule, wsd, 0, WsdConfig, Create,
            "warm-up, a stable stretch, a straight decay at the end");

}  // namespace
}  // namespace tw
