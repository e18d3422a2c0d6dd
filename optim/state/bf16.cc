// bf16: moments rest in two bytes, rounded stochastically: a mean that moves by less than half a
// step of bf16 (beta = 0.999 moves by a thousandth) would stand still under rounding to nearest.
// The random numbers are a function of (seed, update, parameter, moment, element), the same on all
// ranks. Slot: the moment, shaped as the parameter. 2 bytes an element.

#include "core/api/state_codec.h"
#include "core/kernels/state_codes.h"

namespace tw {
namespace {

class Bf16 : public StateCodec {
 public:
  const char* name() const override { return "bf16"; }
  std::vector<StateSlotSpec> Slots(MomentKind, const TensorSpec& spec) const override {
    return {{"", spec.shape, DType::kBF16}};
  }
  void Decode(const MomentState& state, int64_t first, std::span<float> out) const override {
    kernels::WidenBf16({At(state, first), out.size()}, out);
  }
  void Encode(const MomentState& state, int64_t first, std::span<const float> x) const override {
    kernels::RoundToBf16(x, state.random_key, static_cast<uint64_t>(first),
                         {At(state, first), x.size()});
  }

 private:
  static uint16_t* At(const MomentState& state, int64_t first) {
    return static_cast<uint16_t*>(state.slots[0].data) + first;
  }
};

StatusOr<std::unique_ptr<StateCodec>> Create(const NoConfig&) { return std::make_unique<Bf16>(); }

TW_REGISTER(StateCodec, bf16, 0, NoConfig, Create, "bfloat16, rounded stochastically");

}  // namespace
}  // namespace tw
