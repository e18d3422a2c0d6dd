// ogda: optimistic gradient steps, which guess that the operator changes as it did last time
// (Popov, "A modification of the Arrow-Hurwicz method", 1980; Daskalakis et al., arXiv 1711.00141).
// With F_k what the exchange gives for mean F_m(z_k), and gamma the run's learning rate:
//   z <- optimizer(z, 2*F_k - F_{k-1})        plain steps: z - gamma*(2*F_k - F_{k-1});  F_{-1} =
//   F_0
// One message a step, where extragradient has two.
// State: before, shaped as the parameter: F_{k-1}, the same on all ranks, in units of the gradient.

#include "core/api/strategy.h"
#include "optim/numbers.h"

namespace tw {
namespace {

class Ogda : public Strategy {
 public:
  int64_t StateBytes(const TensorSpec& spec) const override {
    return spec.numel() * DTypeBytes(MomentDType(spec.dtype));
  }

  StatusOr<StepResult> Step(StepMachine& machine) const override {
    StepResult result;
    TW_ASSIGN_OR_RETURN(result.loss, machine.ComputeGradients());
    TW_ASSIGN_OR_RETURN(const bool finite, machine.FinishExchange());
    if (!finite) {
      result.skip = Skip::kEverywhere;
      result.why = "a rank has a non-finite gradient; the step is skipped on all ranks";
      return result;
    }
    const auto parameters = machine.parameters();
    for (size_t p = 0; p < parameters.size(); ++p) {
      bool created = false;
      const TensorView before = machine.Slot("before", p, &created);
      const TensorView grad = parameters[p].grad;
      WithNumbers(grad.dtype, [&](auto numbers) {
        using N = decltype(numbers);
        auto* const last = Elements<typename N::State>(before);
        for (int64_t i = 0; i < grad.numel; ++i) {
          const auto now = N::Get(grad, i);
          N::Put(grad, i, created ? now : 2 * now - last[i]);
          last[i] = now;
        }
      });
    }
    TW_RETURN_IF_ERROR(machine.ApplyUpdate());
    return result;
  }
};

StatusOr<std::unique_ptr<Strategy>> Create(const NoConfig&) { return std::make_unique<Ogda>(); }

TW_REGISTER(Strategy, ogda, 0, NoConfig, Create,
            "optimistic gradient: extragradient's look ahead from the last gradient");

}  // namespace
}  // namespace tw
