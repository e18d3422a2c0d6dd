// SGD with momentum, in the form and with the numbers of torch.optim.SGD (Nesterov's variant after
// Sutskever et al., ICML 2013).
//   g <- g + weight_decay*p;   m <- momentum*m + g
//   p <- p - lr * (nesterov ? g + momentum*m : m)
// State: m, shaped as the parameter, in units of the gradient; none when momentum is 0. fp32, fp64
// for fp64 parameters. Left out: dampening, maximize.

#include "core/kernels/optimizer.h"
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
    const auto narrow = Coefficients<float>(context);
    const auto wide = Coefficients<double>(context);
    for (const ParameterView& parameter : parameters) {
      CheckParameter(parameter);
      const TensorView m = config_.momentum == 0 ? TensorView{}
                                                 : MomentScope(context, *parameter.spec)
                                                       .Slot("m", parameter.spec->shape,
                                                             MomentDType(parameter.value.dtype),
                                                             Reshard::kReplicated);
      if (parameter.value.dtype == DType::kF32) {
        if (m.data) {
          kernels::SgdmStep(parameter.value.f32(), parameter.grad.f32(), m.f32(), narrow);
        } else {
          kernels::SgdStep(parameter.value.f32(), parameter.grad.f32(), narrow);
        }
      } else if (parameter.value.dtype == DType::kF64) {
        auto *p = Elements<double>(parameter.value), *g = Elements<double>(parameter.grad);
        for (int64_t i = 0; i < parameter.value.numel; ++i) {
          UpdateOne(p[i], g[i], m.data ? Elements<double>(m) + i : nullptr, wide);
        }
      } else {
        ForHalfElements(parameter, [&](float& p, float g, int64_t i) {
          UpdateOne(p, g, m.data ? Elements<float>(m) + i : nullptr, narrow);
        });
      }
    }
    return OkStatus();
  }

  int64_t StateBytes(const TensorSpec& spec) const override {
    return config_.momentum == 0 ? 0 : spec.numel() * DTypeBytes(MomentDType(spec.dtype));
  }

 private:
  template <class T>
  static void UpdateOne(T& p, T g, T* m, const kernels::SgdmCoefficients<T>& c) {
    if (m) {
      kernels::SgdmElement(p, g, *m, c);
    } else {
      kernels::SgdElement(p, g, c);
    }
  }

  template <class T>
  kernels::SgdmCoefficients<T> Coefficients(const UpdateContext& context) const {
    return {.grad_scale = static_cast<T>(context.grad_scale),
            .weight_decay = static_cast<T>(config_.weight_decay),
            .momentum = static_cast<T>(config_.momentum),
            .lr = static_cast<T>(context.lr),
            .nesterov = config_.nesterov};
  }

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
