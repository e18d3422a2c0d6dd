// extragradient: look ahead, then step from where one was (Korpelevich, "The extragradient method
// for finding saddle points and other problems", 1976), for operators that no single function is
// the gradient of. F_m is the client's operator: for min over x, max over y it is (grad_x,
// -grad_y); for one function its gradient. With gamma the run's learning rate after its schedule:
//   half = z - a*gamma*mean F_m(z)            a: strategy.extrapolation
//   z   <- optimizer(z, mean F_m(half))       plain steps: z - gamma*mean F_m(half)
// Both means go through compressor and feedback, two messages a step. With the same batch in both
// a step sees one realisation of the operator (Mishchenko et al., "Revisiting stochastic
// extragradient", arXiv 1905.11373).
// State: none. Left out: projections, and an optimizer's moments in the first step.

#include <cstring>

#include "core/api/strategy.h"
#include "core/base/config_fields.h"
#include "core/base/workspace.h"
#include "optim/numbers.h"

namespace tw {
namespace {

struct ExtragradientConfig {
  double extrapolation = 1;
  bool same_batch = true;
  static FieldList<ExtragradientConfig> Fields() {
    return FieldList<ExtragradientConfig>()
        .Real("extrapolation", &ExtragradientConfig::extrapolation, {0, 1e3, kOpenLow},
              "the step that looks ahead, in units of the learning rate")
        .Bool("same_batch", &ExtragradientConfig::same_batch,
              "both gradients of a step are of one batch");
  }
};

class Extragradient : public Strategy {
 public:
  explicit Extragradient(const ExtragradientConfig& config) : config_(config) {}
  double ExchangesPerStep() const override { return 2; }

  StatusOr<StepResult> Step(StepMachine& machine) const override {
    const auto parameters = machine.parameters();
    const std::vector<TensorView> half = HalfWay(parameters);
    TurnsCall look;
    look.out = half;
    look.work = [](Client& client) -> StatusOr<bool> {
      TW_RETURN_IF_ERROR(client.ComputeGradients(0).status());
      return true;
    };
    TW_ASSIGN_OR_RETURN(const TurnsResult first, machine.Turns(look));
    if (first.arrived == 0) return Skipped(first);
    const double step = config_.extrapolation * machine.lr();
    for (size_t p = 0; p < half.size(); ++p) {
      WithNumbers(half[p].dtype, [&](auto numbers) {
        using N = decltype(numbers);
        const auto gamma = static_cast<typename N::State>(step);
        for (int64_t i = 0; i < half[p].numel; ++i) {
          N::Put(half[p], i, N::Get(parameters[p].value, i) - gamma * N::Get(half[p], i));
        }
      });
    }
    TurnsCall move;
    move.moves = true;
    move.work = [&](Client& client) -> StatusOr<bool> {
      for (size_t p = 0; p < half.size(); ++p) {
        if (half[p].numel == 0) continue;
        std::memcpy(client.parameters()[p].value.data, half[p].data,
                    static_cast<size_t>(half[p].bytes()));
      }
      TW_RETURN_IF_ERROR(client.ComputeGradients(config_.same_batch ? 0 : 1).status());
      return true;
    };
    TW_ASSIGN_OR_RETURN(const TurnsResult second, machine.Turns(move));
    if (second.arrived == 0) return Skipped(second);
    TW_RETURN_IF_ERROR(machine.ApplyUpdate());
    StepResult result;
    result.loss = second.loss;
    return result;
  }

 private:
  std::vector<TensorView> HalfWay(std::span<const ParameterView> parameters) const {
    std::vector<TensorView> views;
    for (size_t p = 0; p < parameters.size(); ++p) {
      const TensorView& x = parameters[p].value;
      const auto room = scratch_.Get<uint8_t>(static_cast<int>(p), static_cast<size_t>(x.bytes()));
      views.push_back({room.data(), x.dtype, x.numel});
    }
    return views;
  }
  static StepResult Skipped(const TurnsResult& turns) {
    StepResult result;
    result.loss = turns.loss;
    result.skip = Skip::kEverywhere;
    result.why = "a gradient or message is not finite; the step is skipped on all ranks";
    return result;
  }

  ExtragradientConfig config_;
  mutable Workspace scratch_;  // memory, not state: nothing in it outlives a step
};

StatusOr<std::unique_ptr<Strategy>> Create(const ExtragradientConfig& config) {
  return std::make_unique<Extragradient>(config);
}

TW_REGISTER(Strategy, extragradient, 0, ExtragradientConfig, Create,
            "look ahead, then step by the gradient found there; for saddle points and games");

}  // namespace
}  // namespace tw
