// AdamW on 4-bit moments with v as an outer product of means, on a device; the host goes through
// tiles. Means are sums in another order than there (core/kernels/state_factor_device.h): 17.4
// bytes a parameter.

#include "core/kernels/device_kernels.h"
#include "optim/fused/fused_step.h"

namespace tw {
namespace {

class Kernel : public FusedAdamW {
 public:
  bool on_host() const override { return false; }
  void Step(const ParameterView& parameter, const MomentState& m, const MomentState& v,
            const kernels::AdamWCoefficients<float>& c) const override {
    const TensorSpec& spec = *parameter.spec;
    kernels::DeviceKernels& device = *kernels::OnDevice();
    const std::span<float> p = parameter.value.f32(), g = parameter.grad.f32();
    if (!spec.is_matrix()) return device.AdamWStep4(p, g, CodedMomentOf(m), CodedMomentOf(v), c);
    device.AdamWStepFactor(p, g, spec.cols(), CodedMomentOf(m), v.slots[0].f32(), c);
  }
};

TW_REGISTER(FusedAdamW, int4_factor, 0, NoConfig, CreateFused<Kernel>,
            "adamw on 4-bit moments, v as an outer product of means, on a device");

}  // namespace
}  // namespace tw
