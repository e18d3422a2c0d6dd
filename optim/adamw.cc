// AdamW: Adam with decoupled weight decay (Kingma & Ba, arXiv 1412.6980; Loshchilov & Hutter,
// arXiv 1711.05101), with the numbers of torch.optim.AdamW.
//   p <- (1 - lr*weight_decay) * p
//   m <- beta1*m + (1-beta1)*g;   v <- beta2*v + (1-beta2)*g^2
//   p <- p - lr/(1-beta1^t) * m / (sqrt(v)/sqrt(1-beta2^t) + eps)
// t counts applied updates. State: m, v, shaped as the parameter, in units of the gradient and of
// its square, resting as optimizer.state says (optim/state); fp64 for fp64 parameters. The update
// itself is in fp32 and uses m and v before they are encoded again. Half-precision parameters have
// no fp32 master copy: an update below half a unit in the last place is lost. Left out: amsgrad,
// maximize.

#include "optim/adamw_step.h"
#include "optim/elementwise.h"

namespace tw {
namespace {

class AdamW : public Optimizer {
 public:
  explicit AdamW(AdamWConfig config) : config_(std::move(config)) {}

  WeightDecay weight_decay() const override { return {config_.weight_decay, true}; }

  Status Step(std::span<const ParameterView> parameters,
              const UpdateContext& context) const override {
    Together together;
    for (const ParameterView& parameter : parameters) {
      together.Next();
      CheckParameter(parameter);
      StepAdamW(parameter, config_, context);
    }
    return OkStatus();
  }
  bool StepNarrow(const TensorSpec& spec, const kernels::NarrowParameter& parameter,
                  const UpdateContext& context) const override {
    return StepAdamWNarrow(spec, parameter, config_, context);
  }
  Status CheckOnDevice(const TensorSpec& spec, const StateTreatment& treatment) const override {
    return CheckAdamWOnDevice(spec, treatment);
  }
  int64_t StateBytes(const TensorSpec& spec, const StateTreatment& treatment) const override {
    return AdamWStateBytes(spec, treatment);
  }

 private:
  AdamWConfig config_;
};

StatusOr<std::unique_ptr<Optimizer>> Create(const AdamWConfig& config) {
  return std::make_unique<AdamW>(config);
}

TW_REGISTER(Optimizer, adamw, 0, AdamWConfig, Create, "Adam with decoupled weight decay");

}  // namespace
}  // namespace tw
