// SGD with momentum on a moment in 4 bits: 13.06 bytes a parameter.

#include "optim/fused/fused_step.h"

namespace tw {
namespace {

class Kernel : public FusedSgdm {
 public:
  void Step(const ParameterView& parameter, const MomentState& m,
            const kernels::SgdmCoefficients<float>& c) const override {
    kernels::SgdmStep4(parameter.value.f32(), parameter.grad.f32(), CodedMomentOf(m), c);
  }
};

TW_REGISTER(FusedSgdm, int4, 0, NoConfig, CreateFused<Kernel>, "sgdm on a 4-bit moment");

}  // namespace
}  // namespace tw
