// AdamW on moments in 4 bits: 14.13 bytes a parameter.

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
};

TW_REGISTER(FusedAdamW, int4, 0, NoConfig, CreateFused<Kernel>, "adamw on 4-bit moments");

}  // namespace
}  // namespace tw
