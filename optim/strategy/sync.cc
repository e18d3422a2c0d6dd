// sync: every rank's gradient is exchanged every step, the mean feeds the same update everywhere.
//   g_i = grad f_i(x);  ghat = exchange(g_1..g_n);  x <- optimizer(x, ghat)

#include "core/api/strategy.h"

namespace tw {
namespace {

class Sync : public Strategy {
 public:
  bool takes_sketches() const override { return true; }
  StatusOr<StepResult> Step(StepMachine& machine) const override {
    StepResult result;
    TW_ASSIGN_OR_RETURN(result.loss, machine.ComputeGradients());
    TW_ASSIGN_OR_RETURN(const bool finite, machine.FinishExchange());
    if (finite) {
      TW_RETURN_IF_ERROR(machine.ApplyUpdate());
    } else {
      result.skip = Skip::kEverywhere;
      result.why = "a rank has a non-finite gradient; the step is skipped on all ranks";
    }
    return result;
  }
};

StatusOr<std::unique_ptr<Strategy>> Create(const NoConfig&) { return std::make_unique<Sync>(); }

TW_REGISTER(Strategy, sync, 0, NoConfig, Create, "exchange gradients every step");

}  // namespace
}  // namespace tw
