// int8: moments in 8 bits of dynamic exponent with a scale a block of 256 (Dettmers et al., arXiv
// 2110.02861), v unsigned and with zero.
// Slots of each: .codes uint8 [numel]; .scales fp32 [numel/256]. 1.0156 bytes an element.

#include "optim/state/block_codes.h"

namespace tw {
namespace {

class Int8 : public StateCodec {
 public:
  const char* name() const override { return "int8"; }
  std::vector<StateSlotSpec> Slots(MomentKind, const TensorSpec& spec) const override {
    return {{".codes", {spec.numel()}, DType::kU8},
            {".scales", {kernels::Blocks(spec.numel(), kernels::kStateBlock8)}, DType::kF32}};
  }
  void Decode(const MomentState& state, int64_t first, std::span<float> out) const override {
    kernels::DecodeBlocks8(CodeOf(state.kind),
                           CodesOf(state).subspan(static_cast<size_t>(first), out.size()),
                           ScalesAt(state, first, out.size(), kernels::kStateBlock8), out);
  }
  void Encode(const MomentState& state, int64_t first, std::span<const float> x) const override {
    kernels::EncodeBlocks8(CodeOf(state.kind), x,
                           CodesOf(state).subspan(static_cast<size_t>(first), x.size()),
                           ScalesAt(state, first, x.size(), kernels::kStateBlock8));
  }

 private:
  static kernels::Code8 CodeOf(MomentKind kind) {
    return kind == MomentKind::kSigned ? kernels::Code8::kDeSigned : kernels::Code8::kDeUnsigned;
  }
};

StatusOr<std::unique_ptr<StateCodec>> Create(const NoConfig&) { return std::make_unique<Int8>(); }

TW_REGISTER(StateCodec, int8, 0, NoConfig, Create, "8 bits, a scale for each 256 elements");

}  // namespace
}  // namespace tw
