#include "optim/adamw_step.h"

#include <cmath>

#include "core/base/device.h"
#include "optim/fused/fused_step.h"

namespace tw {
namespace {

class AdamWRule : public TileRule {
 public:
  explicit AdamWRule(const kernels::AdamWCoefficients<float>& c) : c_(c), around_(c) {
    around_.beta2 = 1;
    around_.rest2 = 0;
  }
  void Update(const Tile& tile) const override {
    kernels::AdamWStep(tile.p, tile.g, tile.moments[0], tile.moments[1], c_);
  }
  void UpdateSecond(std::span<const float> g, std::span<float> second) const override {
    kernels::SecondMomentStep(g, second, c_);
  }
  void UpdateAround(const Tile& tile) const override {
    kernels::AdamWStep(tile.p, tile.g, tile.moments[0], tile.moments[1], around_);
  }

 private:
  kernels::AdamWCoefficients<float> c_, around_;
};

// Null where the way is through tiles.
const FusedAdamW* FusedFor(const StateCodec& codec, const TensorSpec& spec) {
  if (spec.dtype != DType::kF32) return nullptr;
  const FusedAdamW* const fused = FindFused<FusedAdamW>(codec);
  return fused && (fused->on_host() || CurrentQueue()) ? fused : nullptr;
}

void StepWide(const ParameterView& parameter, const UpdateContext& context,
              const kernels::AdamWCoefficients<double>& c) {
  const TensorSpec& spec = *parameter.spec;
  const StateScope scope = MomentScope(context, spec);
  auto* m = Elements<double>(scope.Slot("m", spec.shape, DType::kF64, context.moments));
  auto* v = Elements<double>(scope.Slot("v", spec.shape, DType::kF64, context.moments));
  auto *p = Elements<double>(parameter.value), *g = Elements<double>(parameter.grad);
  for (int64_t i = 0; i < spec.numel(); ++i) kernels::AdamWElement(p[i], g[i], m[i], v[i], c);
}

}  // namespace

FieldList<AdamWConfig> AdamWConfig::Fields() {
  return FieldList<AdamWConfig>()
      .Reals("betas", &AdamWConfig::betas, {0, 1, kOpenHigh}, 2,
             "decay of the mean gradient and of the mean square")
      .Real("eps", &AdamWConfig::eps, {0, 1, kOpenLow}, "added to the root of the mean square")
      .Real("weight_decay", &AdamWConfig::weight_decay, {0},
            "parameters shrink by lr * weight_decay an update");
}

template <class T>
kernels::AdamWCoefficients<T> AdamWCoefficientsOf(const AdamWConfig& config,
                                                  const UpdateContext& context) {
  const double beta1 = config.betas[0], beta2 = config.betas[1];
  const double t = static_cast<double>(context.update);
  return {.grad_scale = static_cast<T>(context.grad_scale),
          .decay = static_cast<T>(1 - context.lr * config.weight_decay),
          .beta1 = static_cast<T>(beta1),
          .rest1 = static_cast<T>(1 - beta1),
          .beta2 = static_cast<T>(beta2),
          .rest2 = static_cast<T>(1 - beta2),
          .step_size = static_cast<T>(context.lr / (1 - std::pow(beta1, t))),
          .inverse_root_bias = static_cast<T>(1 / std::sqrt(1 - std::pow(beta2, t))),
          .eps = static_cast<T>(config.eps)};
}
template kernels::AdamWCoefficients<float> AdamWCoefficientsOf(const AdamWConfig&,
                                                               const UpdateContext&);
template kernels::AdamWCoefficients<double> AdamWCoefficientsOf(const AdamWConfig&,
                                                                const UpdateContext&);

void StepAdamW(const ParameterView& parameter, const AdamWConfig& config,
               const UpdateContext& context) {
  const TensorSpec& spec = *parameter.spec;
  if (spec.dtype == DType::kF64) {
    return StepWide(parameter, context, AdamWCoefficientsOf<double>(config, context));
  }
  const UpdateScratch scratch(context);
  const StateCodec& codec = CodecOf(TreatmentOf(context, spec), spec);
  const CodedState moments[] = {
      OpenMoment(codec, MomentKind::kSigned, "m", 0, spec, context, *scratch),
      OpenMoment(codec, MomentKind::kSquare, "v", 1, spec, context, *scratch)};
  const auto c = AdamWCoefficientsOf<float>(config, context);
  if (const FusedAdamW* fused = FusedFor(codec, spec)) {
    fused->Step(parameter, moments[0].state, moments[1].state, c);
  } else {
    StepInTiles(parameter, moments, AdamWRule(c), *scratch);
  }
}

bool StepAdamWNarrow(const TensorSpec& spec, const kernels::NarrowParameter& parameter,
                     const AdamWConfig& config, const UpdateContext& context) {
  const StateCodec& codec = CodecOf(TreatmentOf(context, spec), spec);
  const FusedAdamW* fused = FindFused<FusedAdamW>(codec);
  if (!fused) return false;
  const UpdateScratch scratch(context);
  const CodedState m = OpenMoment(codec, MomentKind::kSigned, "m", 0, spec, context, *scratch);
  const CodedState v = OpenMoment(codec, MomentKind::kSquare, "v", 1, spec, context, *scratch);
  return fused->StepNarrow(parameter, m.state, v.state,
                           AdamWCoefficientsOf<float>(config, context));
}

Status CheckAdamWOnDevice(const TensorSpec& spec, const StateTreatment& treatment) {
  const StateCodec& codec = CodecOf(treatment, spec);
  if (spec.dtype == DType::kF32 && FindFused<FusedAdamW>(codec)) return OkStatus();
  return CheckTilesOnDevice(codec, MomentKind::kSquare, spec);
}

int64_t AdamWStateBytes(const TensorSpec& spec, const StateTreatment& treatment) {
  if (spec.dtype == DType::kF64) return 16 * spec.numel();
  const StateCodec& codec = CodecOf(treatment, spec);
  return MomentBytes(codec, MomentKind::kSigned, spec) +
         MomentBytes(codec, MomentKind::kSquare, spec);
}

}  // namespace tw
