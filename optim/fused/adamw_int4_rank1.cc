// AdamW on 4-bit moments with v by rank 1, on a device; the host goes through tiles, with the same
// bits: 23 bytes a parameter.

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
    const kernels::CodedMoment second = CodedMomentOf(v);
    device.AdamWStepRank1(p, g, spec.cols(), CodedMomentOf(m), second.codes, second.scales,
                          {static_cast<float*>(v.scratch), second.scales.size()}, c);
  }
};

TW_REGISTER(FusedAdamW, int4_rank1, 0, NoConfig, CreateFused<Kernel>,
            "adamw on 4-bit moments, v by rank 1, on a device");

}  // namespace
}  // namespace tw
