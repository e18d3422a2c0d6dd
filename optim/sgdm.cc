// SGD with momentum, in the form and with the numbers of torch.optim.SGD (Nesterov's variant after
// Sutskever et al., ICML 2013).
//   g <- g + weight_decay*p;   m <- momentum*m + g
//   p <- p - lr * (nesterov ? g + momentum*m : m)
// State: m, shaped as the parameter, in units of the gradient, resting as optimizer.state says
// (optim/state); none when momentum is 0. fp64 for fp64 parameters. Left out: dampening, maximize.

#include "core/kernels/device_kernels.h"
#include "optim/descend.h"
#include "optim/fused/fused_step.h"
#include "optim/state/fp32.h"

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

class SgdmRule : public TileRule {
 public:
  explicit SgdmRule(const kernels::SgdmCoefficients<float>& c) : c_(c) {}
  void Update(const Tile& tile) const override {
    if (tile.moments[0].empty()) return kernels::SgdStep(tile.p, tile.g, c_);
    kernels::SgdmStep(tile.p, tile.g, tile.moments[0], c_);
  }

 private:
  kernels::SgdmCoefficients<float> c_;
};

class Sgdm : public Optimizer {
 public:
  explicit Sgdm(const SgdmConfig& config) : config_(config) {}

  WeightDecay weight_decay() const override { return {config_.weight_decay, false}; }

  Status Step(std::span<const ParameterView> parameters,
              const UpdateContext& context) const override {
    Together together;
    for (const ParameterView& parameter : parameters) {
      together.Next();
      CheckParameter(parameter);
      const StateCodec& codec = CodecOf(TreatmentOf(context, *parameter.spec), *parameter.spec);
      const bool half_on_device = parameter.value.dtype != DType::kF32 && CurrentQueue();
      if (half_on_device || (config_.momentum > 0 && &codec != &Fp32States())) {
        StepCoded(parameter, codec, context);
        continue;
      }
      const TensorView m = config_.momentum == 0
                               ? TensorView{}
                               : MomentScope(context, *parameter.spec)
                                     .Slot("m", parameter.spec->shape,
                                           MomentDType(parameter.value.dtype), context.moments);
      Descend(parameter, m, Coefficients<double>(context));
    }
    return OkStatus();
  }

  bool StepNarrow(const TensorSpec& spec, const kernels::NarrowParameter& parameter,
                  const UpdateContext& context) const override {
    kernels::DeviceKernels& device = *kernels::OnDevice();
    const auto c = Coefficients<float>(context);
    if (config_.momentum == 0) {
      device.SgdStepNarrow(parameter, c);
      return true;
    }
    const StateCodec& codec = CodecOf(TreatmentOf(context, spec), spec);
    const FusedSgdm* fused = FindFused<FusedSgdm>(codec);
    if (!fused && &codec != &Fp32States()) return false;
    const UpdateScratch scratch(context);
    const CodedState m = OpenMoment(codec, MomentKind::kSigned, "m", 0, spec, context, *scratch);
    if (fused) return fused->StepNarrow(parameter, m.state, c);
    device.SgdmStepNarrow(parameter, m.state.slots[0].f32(), c);
    return true;
  }

  int64_t StateBytes(const TensorSpec& spec, const StateTreatment& treatment) const override {
    if (config_.momentum == 0) return 0;
    if (spec.dtype == DType::kF64) return 8 * spec.numel();
    return MomentBytes(CodecOf(treatment, spec), MomentKind::kSigned, spec);
  }

 private:
  template <class T>
  kernels::SgdmCoefficients<T> Coefficients(const UpdateContext& context) const {
    return {.grad_scale = static_cast<T>(context.grad_scale),
            .weight_decay = static_cast<T>(config_.weight_decay),
            .momentum = static_cast<T>(config_.momentum),
            .lr = static_cast<T>(context.lr),
            .nesterov = config_.nesterov};
  }

  void StepCoded(const ParameterView& parameter, const StateCodec& codec,
                 const UpdateContext& context) const {
    const UpdateScratch scratch(context);
    const SgdmRule rule(Coefficients<float>(context));
    if (config_.momentum == 0) return StepInTiles(parameter, {}, rule, *scratch);
    const CodedState m[] = {
        OpenMoment(codec, MomentKind::kSigned, "m", 0, *parameter.spec, context, *scratch)};
    const FusedSgdm* fused =
        parameter.value.dtype == DType::kF32 ? FindFused<FusedSgdm>(codec) : nullptr;
    if (fused) {
      fused->Step(parameter, m[0].state, Coefficients<float>(context));
    } else {
      StepInTiles(parameter, m, rule, *scratch);
    }
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
