// SGD with momentum on a moment in 4 bits: 13.06 bytes a parameter.

#include "core/kernels/device_kernels.h"
#include "optim/fused/fused_step.h"

namespace tw {
namespace {

class Kernel : public FusedSgdm {
 public:
  void Step(const ParameterView& parameter, const MomentState& m,
            const kernels::SgdmCoefficients<float>& c) const override {
    kernels::SgdmStep4(parameter.value.f32(), parameter.grad.f32(), CodedMomentOf(m), c);
  }
  bool StepNarrow(const kernels::NarrowParameter& x, const MomentState& m,
                  const kernels::SgdmCoefficients<float>& c) const override {
    kernels::OnDevice()->SgdmStep4Narrow(x, CodedMomentOf(m), c);
    return true;
  }
};

TW_REGISTER(FusedSgdm, int4, 0, NoConfig, CreateFused<Kernel>, "sgdm on a 4-bit moment");

}  // namespace
}  // namespace tw
