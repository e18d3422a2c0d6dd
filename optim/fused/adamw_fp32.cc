// AdamW on moments in fp32: 28 bytes a parameter.

#include "core/kernels/device_kernels.h"
#include "optim/fused/fused_step.h"

namespace tw {
namespace {

class Kernel : public FusedAdamW {
 public:
  void Step(const ParameterView& parameter, const MomentState& m, const MomentState& v,
            const kernels::AdamWCoefficients<float>& c) const override {
    kernels::AdamWStep(parameter.value.f32(), parameter.grad.f32(), m.slots[0].f32(),
                       v.slots[0].f32(), c);
  }
  bool StepNarrow(const kernels::NarrowParameter& x, const MomentState& m, const MomentState& v,
                  const kernels::AdamWCoefficients<float>& c) const override {
    kernels::OnDevice()->AdamWStepNarrow(x, m.slots[0].f32(), v.slots[0].f32(), c);
    return true;
  }
};

TW_REGISTER(FusedAdamW, fp32, 0, NoConfig, CreateFused<Kernel>, "adamw on fp32 moments");

}  // namespace
}  // namespace tw
