// inverse_sqrt: linear warm-up, then a rate that falls with the square root of the step (Vaswani et
// al., arXiv 1706.03762, with warm-up; the step size of subgradient methods without).
//   factor = sqrt(w / (step + 1)),   w = max(1, warmup_steps), after the warm-up

#include <algorithm>
#include <cmath>

#include "core/api/schedule.h"
#include "optim/schedule/warmup.h"

namespace tw {
namespace {

struct InverseSqrtConfig {
  int64_t warmup_steps = 0;
  static FieldList<InverseSqrtConfig> Fields() {
    return FieldList<InverseSqrtConfig>().Int("warmup_steps", &InverseSqrtConfig::warmup_steps, {0},
                                              "steps of linear rise to the full rate");
  }
};

class InverseSqrt : public Schedule {
 public:
  explicit InverseSqrt(const InverseSqrtConfig& config) : warmup_(config.warmup_steps) {}
  double Factor(int64_t step, int64_t total_steps) const override {
    if (step < warmup_) return WarmupFactor(step, warmup_);
    return std::sqrt(static_cast<double>(std::max<int64_t>(1, warmup_)) /
                     static_cast<double>(step + 1));
  }

 private:
  int64_t warmup_;
};

StatusOr<std::unique_ptr<Schedule>> Create(const InverseSqrtConfig& config) {
  return std::make_unique<InverseSqrt>(config);
}

TW_REGISTER(Schedule, inverse_sqrt, 0, InverseSqrtConfig, Create,
            "warm-up, then falling with the square root of the step");

}  // namespace
}  // namespace tw
