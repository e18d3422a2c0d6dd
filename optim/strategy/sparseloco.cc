// sparseloco: local steps, then a plain step on the mean of what ranks moved, sent sparse and with
// few bits; an error memory that fades stands in for the outer momentum (Sarfi et al.,
// "SparseLoCo", arXiv 2508.15706).
//   d_i = a - x_i after H local steps                            (local_rounds.h)
//   e_i <- beta*e_i + d_i;   q_i = C(e_i);   e_i <- e_i - q_i    [feedback] ef14, decay = beta
//   a <- a - lr * mean q_i                                       [compressor] C
// The paper's C keeps the largest 1-3 % of each chunk of 4096 elements, with 2-bit values. Error
// memory and codec are those of any run: this file is the last line only.
// State: other (local_rounds.h). Left out: bounding each rank's norm by the median of all.

#include "optim/descend.h"
#include "optim/strategy/local_rounds.h"

namespace tw {
namespace {

struct SparseLoCoConfig {
  int64_t local_steps = 10;
  double outer_lr = 1;
  static FieldList<SparseLoCoConfig> Fields() {
    return FieldList<SparseLoCoConfig>()
        .Int("local_steps", &SparseLoCoConfig::local_steps, {1}, "local steps between exchanges")
        .Real("outer_lr", &SparseLoCoConfig::outer_lr, {0, 1e3, kOpenLow},
              "learning rate of the step on the mean of what ranks sent; 1 takes the mean");
  }
};

class SparseLoCo : public LocalRounds {
 public:
  explicit SparseLoCo(const SparseLoCoConfig& config)
      : LocalRounds(config.local_steps), lr_(config.outer_lr) {}

 protected:
  void MoveAnchor(const ParameterView& anchor, StateBag&) const override {
    Descend(anchor, {},
            {.grad_scale = 1, .weight_decay = 0, .momentum = 0, .lr = lr_, .nesterov = false});
  }

 private:
  double lr_;
};

StatusOr<std::unique_ptr<Strategy>> Create(const SparseLoCoConfig& config) {
  return std::make_unique<SparseLoCo>(config);
}

TW_REGISTER(Strategy, sparseloco, 0, SparseLoCoConfig, Create,
            "local steps, then a plain step on the mean of what ranks sent; wants feedback.decay");

}  // namespace
}  // namespace tw
