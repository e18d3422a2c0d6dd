// fp32: moments rest as they are. Slot: the moment, shaped as the parameter. 4 bytes an element.

#include "optim/state/fp32.h"

#include "core/base/device.h"

namespace tw {
namespace {

class Fp32 : public StateCodec {
 public:
  const char* name() const override { return "fp32"; }
  std::vector<StateSlotSpec> Slots(MomentKind, const TensorSpec& spec) const override {
    return {{"", spec.shape, DType::kF32}};
  }
  void Decode(const MomentState& state, int64_t first, std::span<float> out) const override {
    CopyBytes(out.data(), state.slots[0].f32().data() + first, out.size_bytes());
  }
  void Encode(const MomentState& state, int64_t first, std::span<const float> x) const override {
    CopyBytes(state.slots[0].f32().data() + first, x.data(), x.size_bytes());
  }
};

StatusOr<std::unique_ptr<StateCodec>> Create(const NoConfig&) { return std::make_unique<Fp32>(); }

TW_REGISTER(StateCodec, fp32, 0, NoConfig, Create, "moments as they are, 4 bytes each");

}  // namespace

const StateCodec& Fp32States() {
  static const Fp32 codec;
  return codec;
}

}  // namespace tw
