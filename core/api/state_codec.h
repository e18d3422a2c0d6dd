#pragma once
// StateCodec: how an optimizer's moments rest between updates. Immutable and thread safe; what it
// keeps are slots "optimizer/<parameter>/<moment><slot>" of the state bag, so that a checkpoint has
// them like any other.
//
// An update goes through a parameter in tiles of kStateTile elements: decode, update in fp32, use
// for the parameter as it is, encode. So no fp32 copy of a moment is ever larger than a tile.
// Codecs whose scales belong to the whole tensor see every tile twice:
//   scales first   Observe(new numbers) ...; Encode(new numbers) ...; Commit     (rank-1)
//   fit            Observe(new numbers) ...; Commit; what is decoded then is what the parameter
//                  moves by                                                      (factored)

#include <array>
#include <string>
#include <vector>

#include "core/base/registry.h"
#include "core/base/tensor_view.h"

namespace tw {

inline constexpr int64_t kStateTile = 1024;
// Smaller tensors keep fp32 moments whatever the codec. Counted on the whole parameter.
inline constexpr int64_t kSmallState = 4096;

enum class MomentKind : uint8_t {
  kSigned = 0,  // a mean of gradients
  kSquare = 1,  // a mean of squares: never negative, and its root divides
};

struct StateSlotSpec {
  std::string suffix;  // ".codes"; "" is the moment itself
  std::vector<int64_t> shape;
  DType dtype = DType::kF32;
};

enum class StatePasses : uint8_t {
  kOne = 0,
  kScalesFirst = 1,  // new scales need all new numbers
  kFit = 2,          // what rests is fitted to all new numbers, the parameter moves by the fit
};

// One moment of one parameter during one update.
struct MomentState {
  MomentKind kind = MomentKind::kSigned;
  const TensorSpec* spec = nullptr;
  std::array<TensorView, 2> slots;  // in the order of Slots()
  void* scratch = nullptr;          // ScratchBytes(), of this update only; Begin clears it
  uint64_t random_key = 0;          // of this update and moment, the same on all ranks
};

class StateCodec {
 public:
  virtual ~StateCodec() = default;
  // The registered name; fused steps are found by it.
  virtual const char* name() const = 0;
  // At most two. Zeroed slots decode as zeros.
  virtual std::vector<StateSlotSpec> Slots(MomentKind kind, const TensorSpec& spec) const = 0;
  // out.size() elements from `first`, a multiple of kStateTile.
  virtual void Decode(const MomentState& state, int64_t first, std::span<float> out) const = 0;
  virtual void Encode(const MomentState& state, int64_t first, std::span<const float> x) const = 0;

  virtual StatePasses passes(MomentKind kind, const TensorSpec& spec) const {
    return StatePasses::kOne;
  }
  virtual int64_t ScratchBytes(MomentKind kind, const TensorSpec& spec) const { return 0; }
  // For codecs of several passes; tiles come in ascending order.
  virtual void Begin(const MomentState& state) const {}
  virtual void Observe(const MomentState& state, int64_t first, std::span<const float> x) const {}
  virtual void Commit(const MomentState& state) const {}
};

// Whether a codec gets to see this parameter's moments at all: more than kSmallState elements, and
// not fp64 (who trains in fp64 wants its moments so).
inline bool TakesStateCodec(const TensorSpec& spec) {
  return spec.numel() > kSmallState && spec.dtype != DType::kF64;
}

}  // namespace tw
