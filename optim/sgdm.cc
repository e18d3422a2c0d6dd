// SGD with momentum, in the form and with the numbers of torch.optim.SGD (Nesterov's variant after
// Sutskever et al., ICML 2013).
//   g <- g + weight_decay*p;   m <- momentum*m + g
//   p <- p - lr * (nesterov ? g + momentum*m : m)
// State: m, shaped as the parameter, in units of the gradient; none when momentum is 0. fp32, fp64
// for fp64 parameters. Left out: dampening, maximize.

#include "optim/descend.h"
#include "optim/elementwise.h"

namespace tw {
namespace {

struct SgdmConfig {
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 0;
  static FieldList<SgdmConfig> Fields() {
    return FieldList<SgdmConfig>()
        .Real("momentum", &SgdmConfig::momentum, {0, 1, kOpenHigh},
              "decay of the summed gradients; 0 is plain SGD and keeps no state")
        .Bool("nesterov", &SgdmConfig::nesterov, "look one momentum step ahead")
        .Real("weight_decay", &SgdmConfig::weight_decay, {0},
              "weight_decay * parameter is added to the gradient");
  }
};

class Sgdm : public Optimizer {
 public:
  explicit Sgdm(const SgdmConfig& config) : config_(config) {}

  Status Step(std::span<const ParameterView> parameters,
              const UpdateContext& context) const override {
    for (const ParameterView& parameter : parameters) {
      const TensorView m = config_.momentum == 0
                               ? TensorView{}
                               : MomentScope(context, *parameter.spec)
                                     .Slot("m", parameter.spec->shape,
                                           MomentDType(parameter.value.dtype), context.moments);
      Descend(parameter, m,
              {.grad_scale = context.grad_scale,
               .weight_decay = config_.weight_decay,
               .momentum = config_.momentum,
               .lr = context.lr,
               .nesterov = config_.nesterov});
    }
    return OkStatus();
  }

  int64_t StateBytes(const TensorSpec& spec) const override {
    return config_.momentum == 0 ? 0 : spec.numel() * DTypeBytes(MomentDType(spec.dtype));
  }

 private:
  SgdmConfig config_;
};

StatusOr<std::unique_ptr<Optimizer>> Create(const SgdmConfig& config) {
  if (config.nesterov && config.momentum == 0) {
    return ConfigError("optimizer.nesterov = true needs optimizer.momentum above 0");
  }
  return std::make_unique<Sgdm>(config);
}

TW_REGISTER(Optimizer, sgdm, 0, SgdmConfig, Create, "SGD with momentum, plain or Nesterov");

}  // namespace
}  // namespace tw
