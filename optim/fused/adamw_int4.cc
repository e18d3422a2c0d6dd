// AdamW on moments in 4 bits: 14.13 bytes a parameter.

#include "core/kernels/device_kernels.h"
#include "optim/fused/fused_step.h"

namespace tw {
namespace {

class Kernel : public FusedAdamW {
 public:
  void Step(const ParameterView& parameter, const MomentState& m, const MomentState& v,
            const kernels::AdamWCoefficients<float>& c) const override {
    kernels::AdamWStep4(parameter.value.f32(), parameter.grad.f32(), CodedMomentOf(m),
                        CodedMomentOf(v), c);
  }
  bool StepNarrow(const kernels::NarrowParameter& x, const MomentState& m, const MomentState& v,
                  const kernels::AdamWCoefficients<float>& c) const override {
    kernels::OnDevice()->AdamWStep4Narrow(x, CodedMomentOf(m), CodedMomentOf(v), c);
    return true;
  }
};

TW_REGISTER(FusedAdamW, int4, 0, NoConfig, CreateFused<Kernel>, "adamw on 4-bit moments");

}  // namespace
}  // namespace tw
