// AdamW: Adam with decoupled weight decay (Kingma & Ba, arXiv 1412.6980; Loshchilov & Hutter,
// arXiv 1711.05101), with the numbers of torch.optim.AdamW.
//   p <- (1 - lr*weight_decay) * p
//   m <- beta1*m + (1-beta1)*g;   v <- beta2*v + (1-beta2)*g^2
//   p <- p - lr/(1-beta1^t) * m / (sqrt(v)/sqrt(1-beta2^t) + eps)
// t counts applied updates. State: m, v, shaped as the parameter, in units of the gradient and of
// its square; fp32, fp64 for fp64 parameters. Half-precision parameters have no fp32 master copy:
// an update below half a unit in the last place is lost. Left out: amsgrad, maximize.

#include <cmath>

#include "core/kernels/optimizer.h"
#include "optim/elementwise.h"

namespace tw {
namespace {

struct AdamWConfig {
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0.01;
  static FieldList<AdamWConfig> Fields() {
    return FieldList<AdamWConfig>()
        .Reals("betas", &AdamWConfig::betas, {0, 1, kOpenHigh}, 2,
               "decay of the mean gradient and of the mean square")
        .Real("eps", &AdamWConfig::eps, {0, 1, kOpenLow}, "added to the root of the mean square")
        .Real("weight_decay", &AdamWConfig::weight_decay, {0},
              "parameters shrink by lr * weight_decay an update");
  }
};

class AdamW : public Optimizer {
 public:
  explicit AdamW(AdamWConfig config) : config_(std::move(config)) {}

  Status Step(std::span<const ParameterView> parameters,
              const UpdateContext& context) const override {
    const auto narrow = Coefficients<float>(context);
    const auto wide = Coefficients<double>(context);
    for (const ParameterView& parameter : parameters) {
      CheckParameter(parameter);
      const StateScope scope = MomentScope(context, *parameter.spec);
      const DType dtype = MomentDType(parameter.value.dtype);
      const TensorView m = scope.Slot("m", parameter.spec->shape, dtype, context.moments);
      const TensorView v = scope.Slot("v", parameter.spec->shape, dtype, context.moments);
      if (parameter.value.dtype == DType::kF32) {
        kernels::AdamWStep(parameter.value.f32(), parameter.grad.f32(), m.f32(), v.f32(), narrow);
      } else if (parameter.value.dtype == DType::kF64) {
        auto *p = Elements<double>(parameter.value), *g = Elements<double>(parameter.grad);
        for (int64_t i = 0; i < m.numel; ++i) {
          kernels::AdamWElement(p[i], g[i], Elements<double>(m)[i], Elements<double>(v)[i], wide);
        }
      } else {
        ForHalfElements(parameter, [&](float& p, float g, int64_t i) {
          kernels::AdamWElement(p, g, Elements<float>(m)[i], Elements<float>(v)[i], narrow);
        });
      }
    }
    return OkStatus();
  }

  int64_t StateBytes(const TensorSpec& spec) const override {
    return 2 * spec.numel() * DTypeBytes(MomentDType(spec.dtype));
  }

 private:
  template <class T>
  kernels::AdamWCoefficients<T> Coefficients(const UpdateContext& context) const {
    const double beta1 = config_.betas[0], beta2 = config_.betas[1];
    const double t = static_cast<double>(context.update);
    return {.grad_scale = static_cast<T>(context.grad_scale),
            .decay = static_cast<T>(1 - context.lr * config_.weight_decay),
            .beta1 = static_cast<T>(beta1),
            .rest1 = static_cast<T>(1 - beta1),
            .beta2 = static_cast<T>(beta2),
            .rest2 = static_cast<T>(1 - beta2),
            .step_size = static_cast<T>(context.lr / (1 - std::pow(beta1, t))),
            .inverse_root_bias = static_cast<T>(1 / std::sqrt(1 - std::pow(beta2, t))),
            .eps = static_cast<T>(config_.eps)};
  }

  AdamWConfig config_;
};

StatusOr<std::unique_ptr<Optimizer>> Create(const AdamWConfig& config) {
  return std::make_unique<AdamW>(config);
}

TW_REGISTER(Optimizer, adamw, 0, AdamWConfig, Create, "Adam with decoupled weight decay");

}  // namespace
}  // namespace tw
