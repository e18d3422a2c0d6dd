// diloco: local steps, then a Nesterov step on the mean of what ranks moved (Douillard et al.,
// "DiLoCo", arXiv 2311.08105).
//   D = mean over ranks of (a - x_i) after H local steps       (local_rounds.h)
//   m <- mu*m + D;   a <- a - lr * (D + mu*m)
// State: other (local_rounds.h); m, shaped as the parameter, in units of the parameter, the same on
// all ranks; none when mu is 0. Left out: fragments sent one after the other (Streaming DiLoCo).

#include "optim/descend.h"
#include "optim/elementwise.h"
#include "optim/strategy/local_rounds.h"

namespace tw {
namespace {

struct DiLoCoConfig {
  int64_t local_steps = 10;
  int64_t delay_steps = 0;
  double outer_lr = 0.7;
  double outer_momentum = 0.9;
  static FieldList<DiLoCoConfig> Fields() {
    return FieldList<DiLoCoConfig>()
        .Int("local_steps", &DiLoCoConfig::local_steps, {1}, "local steps between exchanges")
        .Int("delay_steps", &DiLoCoConfig::delay_steps, {0},
             "steps that go on while an exchange is under way, at most local_steps; 0 waits for it")
        .Real("outer_lr", &DiLoCoConfig::outer_lr, {0, 1e3, kOpenLow},
              "learning rate of the step on the mean of what ranks moved; 1 takes the mean")
        .Real("outer_momentum", &DiLoCoConfig::outer_momentum, {0, 1, kOpenHigh},
              "Nesterov momentum of that step; 0 keeps no state");
  }
};

class DiLoCo : public LocalRounds {
 public:
  explicit DiLoCo(const DiLoCoConfig& config)
      : LocalRounds(config.local_steps, config.delay_steps), config_(config) {}

  int64_t StateBytes(const TensorSpec& spec) const override {
    const int64_t m = config_.outer_momentum == 0 ? 0 : DTypeBytes(MomentDType(spec.dtype));
    return LocalRounds::StateBytes(spec) + spec.numel() * m;
  }

 protected:
  void MoveAnchor(const ParameterView& anchor, StateBag& state) const override {
    const TensorSpec& spec = *anchor.spec;
    const TensorView m = config_.outer_momentum == 0
                             ? TensorView{}
                             : state.Slot("strategy/" + spec.name + "/m", spec.shape,
                                          MomentDType(spec.dtype), Reshard::kReplicated);
    Descend(anchor, m,
            {.grad_scale = 1,
             .weight_decay = 0,
             .momentum = config_.outer_momentum,
             .lr = config_.outer_lr,
             .nesterov = true});
  }

 private:
  DiLoCoConfig config_;
};

StatusOr<std::unique_ptr<Strategy>> Create(const DiLoCoConfig& config) {
  if (config.delay_steps > config.local_steps) {
    return ConfigError("strategy.delay_steps = " + std::to_string(config.delay_steps) +
                       ": at most strategy.local_steps = " + std::to_string(config.local_steps) +
                       ", for one exchange is under way at a time");
  }
  return std::make_unique<DiLoCo>(config);
}

TW_REGISTER(Strategy, diloco, 0, DiLoCoConfig, Create,
            "local steps, then a Nesterov step on the mean of what ranks moved");

}  // namespace
}  // namespace tw
