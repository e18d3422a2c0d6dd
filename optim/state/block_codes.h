#pragma once
// What codecs of 4 and 8 bits in blocks share: a moment's codes and scales in the state bag.

#include "core/api/state_codec.h"
#include "core/kernels/state_codes.h"

namespace tw {

// slots: ".codes" uint8 [(numel+1)/2] and ".scales" fp32 [numel/128, rounded up].
inline std::vector<StateSlotSpec> BlockSlots4(const TensorSpec& spec) {
  return {{".codes", {kernels::NibbleBytes(spec.numel())}, DType::kU8},
          {".scales", {kernels::Blocks(spec.numel(), kernels::kStateBlock4)}, DType::kF32}};
}

inline std::span<uint8_t> CodesOf(const MomentState& state) {
  return {static_cast<uint8_t*>(state.slots[0].data), static_cast<size_t>(state.slots[0].numel)};
}

// Tiles are whole numbers of blocks.
static_assert(kStateTile % kernels::kStateBlock4 == 0 && kStateTile % kernels::kStateBlock8 == 0);

inline std::span<uint8_t> PackedAt(const MomentState& state, int64_t first, size_t size) {
  return CodesOf(state).subspan(static_cast<size_t>(first / 2), (size + 1) / 2);
}
inline std::span<float> ScalesAt(const MomentState& state, int64_t first, size_t size,
                                 int64_t block) {
  return state.slots[1].f32().subspan(
      static_cast<size_t>(first / block),
      static_cast<size_t>(kernels::Blocks(static_cast<int64_t>(size), block)));
}

inline void DecodeBlock4(kernels::Code4 code, const MomentState& state, int64_t first,
                         std::span<float> out) {
  kernels::DecodeBlocks4(code, PackedAt(state, first, out.size()),
                         ScalesAt(state, first, out.size(), kernels::kStateBlock4), out);
}
inline void EncodeBlock4(kernels::Code4 code, const MomentState& state, int64_t first,
                         std::span<const float> x) {
  kernels::EncodeBlocks4(code, x, PackedAt(state, first, x.size()),
                         ScalesAt(state, first, x.size(), kernels::kStateBlock4));
}

// 4-bit first moments, and what each codec makes of a mean of squares is its own.
class SignedInt4 : public StateCodec {
 public:
  std::vector<StateSlotSpec> Slots(MomentKind, const TensorSpec& spec) const override {
    return BlockSlots4(spec);
  }
  void Decode(const MomentState& state, int64_t first, std::span<float> out) const override {
    DecodeBlock4(CodeOf(state.kind), state, first, out);
  }
  void Encode(const MomentState& state, int64_t first, std::span<const float> x) const override {
    EncodeBlock4(CodeOf(state.kind), state, first, x);
  }

 protected:
  static kernels::Code4 CodeOf(MomentKind kind) {
    return kind == MomentKind::kSigned ? kernels::Code4::kDeSigned : kernels::Code4::kLinear;
  }
};

}  // namespace tw
