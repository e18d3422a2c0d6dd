// AdamW on moments in 8 bits: 16.06 bytes a parameter.

#include "core/kernels/device_kernels.h"
#include "optim/fused/fused_step.h"

namespace tw {
namespace {

class Kernel : public FusedAdamW {
 public:
  void Step(const ParameterView& parameter, const MomentState& m, const MomentState& v,
            const kernels::AdamWCoefficients<float>& c) const override {
    kernels::AdamWStep8(parameter.value.f32(), parameter.grad.f32(), CodedMomentOf(m),
                        CodedMomentOf(v), c);
  }
  bool StepNarrow(const kernels::NarrowParameter& x, const MomentState& m, const MomentState& v,
                  const kernels::AdamWCoefficients<float>& c) const override {
    kernels::OnDevice()->AdamWStep8Narrow(x, CodedMomentOf(m), CodedMomentOf(v), c);
    return true;
  }
};

TW_REGISTER(FusedAdamW, int8, 0, NoConfig, CreateFused<Kernel>, "adamw on 8-bit moments");

}  // namespace
}  // namespace tw
