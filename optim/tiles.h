#pragma once
// How an optimizer goes through a parameter whose moments rest in some StateCodec: tile by tile, so
// that no fp32 copy is ever larger than kStateTile elements. The path of every (optimizer, codec)
// pair that has no fused step.

#include <array>
#include <span>

#include "core/api/optimizer.h"
#include "optim/elementwise.h"

namespace tw {

// A moment in its slots, ready for one update.
struct CodedState {
  const StateCodec* codec = nullptr;
  MomentState state;
};

// The codec that this parameter's moments really rest in.
const StateCodec& CodecOf(const StateTreatment& treatment, const TensorSpec& spec);
const StateTreatment& TreatmentOf(const UpdateContext& context, const TensorSpec& spec);
// Bytes of one moment.
int64_t MomentBytes(const StateCodec& codec, MomentKind kind, const TensorSpec& spec);

// Memory for an update: the context's, or its own for this call.
class UpdateScratch {
 public:
  explicit UpdateScratch(const UpdateContext& context)
      : workspace_(context.scratch ? context.scratch : &own_) {}
  Workspace& operator*() const { return *workspace_; }

 private:
  Workspace own_;
  Workspace* workspace_;
};

// Slots "optimizer/<parameter>/<moment><suffix>" of moment `number` of the parameter, made at first
// use.
CodedState OpenMoment(const StateCodec& codec, MomentKind kind, const char* moment, int number,
                      const TensorSpec& spec, const UpdateContext& context, Workspace& scratch);

// Slots of an update's workspace. Moments' own scratch takes those of their numbers, 0 and 1.
enum StepSlot : int {
  kStepDenominators = 2,
  kStepParameter = 4,
  kStepGradient = 5,
  kStepMoment0 = 6,
  kStepMoment1 = 7,
};

struct Tile {
  int64_t first = 0;
  std::span<float> p;
  std::span<const float> g;
  std::array<std::span<float>, 2> moments;
};

// What the optimizer does to a tile in fp32.
class TileRule {
 public:
  virtual ~TileRule() = default;
  // Moments and parameter.
  virtual void Update(const Tile& tile) const = 0;
  // The second moment only, with the bits of Update.
  virtual void UpdateSecond(std::span<const float> g, std::span<float> second) const {}
  // The same as Update with a second moment that is final.
  virtual void UpdateAround(const Tile& tile) const { Update(tile); }
};

// moments[1], if any, may rest in a codec of several passes. On a device, where launches cost more
// than memory, a parameter is one tile, and codecs of several passes have fused steps only.
void StepInTiles(const ParameterView& parameter, std::span<const CodedState> moments,
                 const TileRule& rule, Workspace& scratch);
// ConfigError where that leaves a moment without a step on a device.
Status CheckTilesOnDevice(const StateCodec& codec, MomentKind kind, const TensorSpec& spec);

// fp32 numbers of `view`: its own, or a copy in a slot of scratch. For whole tensors on a device.
std::span<float> WideCopy(TensorView view, Workspace& scratch, int slot);

// `size` elements from `first`: the parameter's own when they are fp32, else copied to `room`.
std::span<const float> ReadTile(TensorView view, int64_t first, size_t size, std::span<float> room);

}  // namespace tw
