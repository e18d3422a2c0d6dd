// int4_rank1: m as in int4; v of a matrix in 4 bits with the scale min(row maximum, column maximum)
// (Li, Chen, Zhu, arXiv 2309.01507, after SM3, arXiv 1901.11150): outliers of a row or a column
// spoil no block. A tensor of more dimensions is the matrix [d0, rest]; without two dimensions v is
// as in int4.
//   new row and column maxima from all new v, then v is formed anew from old codes, old scales and
//   the gradient, and encoded with the new ones
// Slots of v: .codes uint8 [(numel+1)/2]; .scales fp32 [rows + cols], rows first.
// m 0.53125, v 0.5 + 4 (rows + cols) / numel bytes an element.

#include <algorithm>

#include "optim/state/block_codes.h"

namespace tw {
namespace {

class Int4Rank1 : public SignedInt4 {
 public:
  const char* name() const override { return "int4_rank1"; }
  std::vector<StateSlotSpec> Slots(MomentKind kind, const TensorSpec& spec) const override {
    if (!ByRank1(kind, spec)) return BlockSlots4(spec);
    return {{".codes", {kernels::NibbleBytes(spec.numel())}, DType::kU8},
            {".scales", {spec.rows() + spec.cols()}, DType::kF32}};
  }
  StatePasses passes(MomentKind kind, const TensorSpec& spec) const override {
    return ByRank1(kind, spec) ? StatePasses::kScalesFirst : StatePasses::kOne;
  }
  int64_t ScratchBytes(MomentKind kind, const TensorSpec& spec) const override {
    return ByRank1(kind, spec) ? 4 * (spec.rows() + spec.cols()) : 0;
  }

  void Decode(const MomentState& state, int64_t first, std::span<float> out) const override {
    if (!ByRank1(state.kind, *state.spec)) return SignedInt4::Decode(state, first, out);
    float scales[kStateTile];
    const std::span<float> s(scales, out.size());
    kernels::Rank1Scales(first, RowsOf(state, Kept(state)), ColsOf(state, Kept(state)), s);
    kernels::DequantizeUnit4(kernels::Code4::kLinear, PackedAt(state, first, out.size()), out);
    for (size_t i = 0; i < out.size(); ++i) out[i] *= s[i];
  }
  void Begin(const MomentState& state) const override { std::ranges::fill(Fresh(state), 0.0f); }
  void Observe(const MomentState& state, int64_t first, std::span<const float> x) const override {
    kernels::RaiseRank1(x, first, RowsOf(state, Fresh(state)), ColsOf(state, Fresh(state)));
  }
  void Encode(const MomentState& state, int64_t first, std::span<const float> x) const override {
    if (!ByRank1(state.kind, *state.spec)) return SignedInt4::Encode(state, first, x);
    float scales[kStateTile];
    const std::span<float> s(scales, x.size());
    kernels::Rank1Scales(first, RowsOf(state, Fresh(state)), ColsOf(state, Fresh(state)), s);
    kernels::DivideByScales(x, s);
    kernels::QuantizeUnit4(kernels::Code4::kLinear, s, PackedAt(state, first, x.size()));
  }
  void Commit(const MomentState& state) const override {
    const std::span<float> kept = Kept(state), fresh = Fresh(state);
    for (size_t i = 0; i < kept.size(); ++i) kept[i] = fresh[i] < 1.17549435e-38f ? 0 : fresh[i];
  }

 private:
  static bool ByRank1(MomentKind kind, const TensorSpec& spec) {
    return kind == MomentKind::kSquare && spec.is_matrix();
  }
  static std::span<float> Kept(const MomentState& state) { return state.slots[1].f32(); }
  static std::span<float> Fresh(const MomentState& state) {
    return {static_cast<float*>(state.scratch), Kept(state).size()};
  }
  static std::span<float> RowsOf(const MomentState& state, std::span<float> all) {
    return all.first(static_cast<size_t>(state.spec->rows()));
  }
  static std::span<float> ColsOf(const MomentState& state, std::span<float> all) {
    return all.last(static_cast<size_t>(state.spec->cols()));
  }
};

StatusOr<std::unique_ptr<StateCodec>> Create(const NoConfig&) {
  return std::make_unique<Int4Rank1>();
}

TW_REGISTER(StateCodec, int4_rank1, 0, NoConfig, Create,
            "4 bits, mean squares scaled by the smaller maximum of row and column");

}  // namespace
}  // namespace tw
