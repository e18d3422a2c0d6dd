// constant: the base learning rate throughout, after an optional linear warm-up.

#include "core/api/schedule.h"
#include "optim/schedule/warmup.h"

namespace tw {
namespace {

struct ConstantConfig {
  int64_t warmup_steps = 0;
  static FieldList<ConstantConfig> Fields() {
    return FieldList<ConstantConfig>().Int("warmup_steps", &ConstantConfig::warmup_steps, {0},
                                           "steps of linear rise to the full rate");
  }
};

class Constant : public Schedule {
 public:
  explicit Constant(const ConstantConfig& config) : config_(config) {}
  double Factor(int64_t step, int64_t) const override {
    return WarmupFactor(step, config_.warmup_steps);
  }

 private:
  ConstantConfig config_;
};

StatusOr<std::unique_ptr<Schedule>> Create(const ConstantConfig& config) {
  return std::make_unique<Constant>(config);
}

TW_REGISTER(Schedule, constant, 0, ConstantConfig, Create, "the full rate after the warm-up");

}  // namespace
}  // namespace tw
