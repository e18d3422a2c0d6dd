#include "optim/tiles.h"

#include <algorithm>

#include "core/api/convert.h"
#include "core/base/device.h"
#include "core/base/rng.h"
#include "optim/state/fp32.h"

namespace tw {
namespace {

TensorView Part(TensorView view, int64_t first, size_t size) {
  return {static_cast<uint8_t*>(view.data) + first * DTypeBytes(view.dtype), view.dtype,
          static_cast<int64_t>(size)};
}

// Room for one tile; where a parameter or gradient is fp32 it is used in place.
struct Rooms {
  std::span<float> p, g;
  std::array<std::span<float>, 2> moments;
};
struct RoomsOnStack {
  alignas(64) float p[kStateTile];
  alignas(64) float g[kStateTile];
  alignas(64) float moments[2][kStateTile];
};

template <class F>
void EachTile(int64_t numel, int64_t tile, F&& f) {
  for (int64_t first = 0; first < numel; first += tile) {
    f(first, static_cast<size_t>(std::min(tile, numel - first)));
  }
}

void Decode(const CodedState& moment, int64_t first, std::span<float> out) {
  moment.codec->Decode(moment.state, first, out);
}
void Encode(const CodedState& moment, int64_t first, std::span<const float> x) {
  moment.codec->Encode(moment.state, first, x);
}

}  // namespace

std::span<const float> ReadTile(TensorView view, int64_t first, size_t size,
                                std::span<float> room) {
  const TensorView part = Part(view, first, size);
  if (view.dtype == DType::kF32) return part.f32();
  ConvertToFp32(part, room.first(size));
  return room.first(size);
}

const StateTreatment& TreatmentOf(const UpdateContext& context, const TensorSpec& spec) {
  static const StateTreatment plain;
  return spec.id < context.treatments.size() ? context.treatments[spec.id] : plain;
}

const StateCodec& CodecOf(const StateTreatment& treatment, const TensorSpec& spec) {
  return treatment.codec && TakesStateCodec(spec) ? *treatment.codec : Fp32States();
}

int64_t MomentBytes(const StateCodec& codec, MomentKind kind, const TensorSpec& spec) {
  int64_t total = 0;
  for (const StateSlotSpec& slot : codec.Slots(kind, spec)) {
    int64_t numel = 1;
    for (int64_t d : slot.shape) numel *= d;
    total += numel * DTypeBytes(slot.dtype);
  }
  return total;
}

CodedState OpenMoment(const StateCodec& codec, MomentKind kind, const char* moment, int number,
                      const TensorSpec& spec, const UpdateContext& context, Workspace& scratch) {
  CodedState out{&codec, {.kind = kind, .spec = &spec}};
  const StateScope scope = MomentScope(context, spec);
  const std::vector<StateSlotSpec> slots = codec.Slots(kind, spec);
  TW_CHECK_LE(slots.size(), out.state.slots.size());
  for (size_t i = 0; i < slots.size(); ++i) {
    out.state.slots[i] = scope.Slot((moment + slots[i].suffix).c_str(), slots[i].shape,
                                    slots[i].dtype, context.moments);
  }
  out.state.scratch =
      scratch.Get<uint8_t>(number, static_cast<size_t>(codec.ScratchBytes(kind, spec))).data();
  out.state.random_key = RngStream::Of(context.seed, RngPurpose::kStateRounding,
                                       static_cast<uint64_t>(context.update), spec.id, kSharedRank)
                             .key +
                         static_cast<uint64_t>(number) * 0x9E3779B97F4A7C15ull;
  return out;
}

namespace {

void StepTiles(const ParameterView& parameter, std::span<const CodedState> moments,
               const TileRule& rule, int64_t tile, const Rooms& rooms) {
  const TensorSpec& spec = *parameter.spec;
  StatePasses passes = StatePasses::kOne;
  if (moments.size() > 1) passes = moments[1].codec->passes(MomentKind::kSquare, spec);
  const auto room = [&](size_t k, size_t size) { return rooms.moments[k].first(size); };
  const auto gradient = [&](int64_t first, size_t size) {
    return ReadTile(parameter.grad, first, size, rooms.g);
  };
  if (passes != StatePasses::kOne) moments[1].codec->Begin(moments[1].state);
  if (passes == StatePasses::kFit) {
    EachTile(spec.numel(), tile, [&](int64_t first, size_t size) {
      Decode(moments[1], first, room(1, size));
      rule.UpdateSecond(gradient(first, size), room(1, size));
      moments[1].codec->Observe(moments[1].state, first, room(1, size));
    });
    moments[1].codec->Commit(moments[1].state);
  }
  EachTile(spec.numel(), tile, [&](int64_t first, size_t size) {
    Tile t{first, rooms.p.first(rooms.p.empty() ? 0 : size), gradient(first, size), {}};
    const TensorView value = Part(parameter.value, first, size);
    if (value.dtype == DType::kF32) {
      t.p = value.f32();
    } else {
      ConvertToFp32(value, t.p);
    }
    for (size_t k = 0; k < moments.size(); ++k) {
      t.moments[k] = room(k, size);
      Decode(moments[k], first, t.moments[k]);
    }
    passes == StatePasses::kFit ? rule.UpdateAround(t) : rule.Update(t);
    if (value.dtype != DType::kF32) ConvertFromFp32(t.p, value);
    for (size_t k = 0; k < moments.size(); ++k) {
      if (k == 1 && passes == StatePasses::kScalesFirst) {
        moments[1].codec->Observe(moments[1].state, first, t.moments[1]);
      } else if (k == 0 || passes == StatePasses::kOne) {
        Encode(moments[k], first, t.moments[k]);
      }
    }
  });
  if (passes != StatePasses::kScalesFirst) return;
  EachTile(spec.numel(), tile, [&](int64_t first, size_t size) {
    Decode(moments[1], first, room(1, size));
    rule.UpdateSecond(gradient(first, size), room(1, size));
    Encode(moments[1], first, room(1, size));
  });
  moments[1].codec->Commit(moments[1].state);
}

}  // namespace

void StepInTiles(const ParameterView& parameter, std::span<const CodedState> moments,
                 const TileRule& rule, Workspace& scratch) {
  if (!CurrentQueue()) {
    RoomsOnStack rooms;
    return StepTiles(parameter, moments, rule, kStateTile,
                     {rooms.p, rooms.g, {rooms.moments[0], rooms.moments[1]}});
  }
  const int64_t numel = parameter.spec->numel();
  const auto room = [&](int slot, bool needed) {
    return scratch.Get<float>(slot, needed ? static_cast<size_t>(numel) : 0);
  };
  StepTiles(parameter, moments, rule, std::max<int64_t>(1, numel),
            {room(kStepParameter, parameter.value.dtype != DType::kF32),
             room(kStepGradient, parameter.grad.dtype != DType::kF32),
             {room(kStepMoment0, moments.size() > 0), room(kStepMoment1, moments.size() > 1)}});
}

Status CheckTilesOnDevice(const StateCodec& codec, MomentKind kind, const TensorSpec& spec) {
  if (codec.passes(kind, spec) == StatePasses::kOne) return OkStatus();
  return ConfigError("optimizer.state = \"" + std::string(codec.name()) +
                     "\" has no step on a device for this optimizer and " + DTypeName(spec.dtype) +
                     " parameters (" + spec.name + ")");
}

std::span<float> WideCopy(TensorView view, Workspace& scratch, int slot) {
  if (view.dtype == DType::kF32) return view.f32();
  const std::span<float> copy = scratch.Get<float>(slot, static_cast<size_t>(view.numel));
  ConvertToFp32(view, copy);
  return copy;
}

}  // namespace tw
