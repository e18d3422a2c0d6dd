#pragma once
// Optimizer: one update of all parameters, from identical gradients on all ranks, so that replicas
// stay bit-identical, or from a rank's own in a local step. Immutable and thread safe; moments are
// state slots "optimizer/<parameter>/<slot>".

#include <span>

#include "core/api/parameter_roles.h"
#include "core/api/state_codec.h"
#include "core/base/registry.h"
#include "core/base/state_bag.h"
#include "core/base/tensor_view.h"
#include "core/kernels/narrow_parameter.h"

namespace tw {

// The way back from the coordinates of a gradient that is a sketch (core/api/sketch.h).
class Expansion {
 public:
  virtual ~Expansion() = default;
  // value <- keep * value + E(update), E linear; update is shaped as the gradient. The same bits on
  // every rank, whatever its thread count and SIMD target. fp32.
  virtual void Apply(TensorView value, double keep, TensorView update) const = 0;
};

struct ParameterView {
  const TensorSpec* spec = nullptr;  // of the gradient; of the value too without an expansion
  TensorView value;
  TensorView grad;  // same dtype as value
  const Expansion* expansion = nullptr;
};

// What a run decides about the moments of one parameter.
struct StateTreatment {
  const StateCodec* codec = nullptr;  // null: fp32
  ParameterRole role;                 // empty: by shape and name
};

// How a parameter in two bytes takes updates that are smaller than its steps.
enum class Masters {
  kNone,        // it does not: rounded to nearest, they are lost
  kFp32,        // an fp32 copy is updated, and rounded to nearest
  kStochastic,  // it is rounded at random, up as often as its distance says, and keeps no copy
};

struct UpdateContext {
  double lr = 0;         // after the schedule
  float grad_scale = 1;  // multiplies every gradient (clipping), fused into the update
  int64_t update = 1;    // 1-based count of applied updates; skipped steps do not count
  StateBag* state = nullptr;
  Reshard moments = Reshard::kReplicated;  // kKeepMean: each rank has its own (local steps)
  std::span<const StateTreatment> treatments = {};  // by TensorSpec::id; empty: fp32, roles by name
  Workspace* scratch = nullptr;                     // null: memory for this call only
  uint64_t seed = 1;                                // of stochastic rounding
  Masters masters = Masters::kNone;                 // of bf16 parameters
};

// How an optimizer shrinks parameters; what one does to a parameter that it does not see itself.
struct WeightDecay {
  double rate = 0;
  bool decoupled = true;  // p <- (1 - lr*rate) p; false: rate * p is added to the gradient
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  virtual WeightDecay weight_decay() const { return {}; }
  // REQUIRES: no parameter has an expansion (core/engine/update.h is the caller that takes them).
  // Own kernels, element-wise: the result does not depend on vector width or thread count.
  virtual Status Step(std::span<const ParameterView> parameters,
                      const UpdateContext& context) const = 0;
  // On a device: the step of a bf16 parameter in one pass, with the bits of Step on fp32 copies of
  // it and its gradient, rounded back. `spec` is that of the fp32 copy. False: there is no such
  // step and nothing was done.
  virtual bool StepNarrow(const TensorSpec& spec, const kernels::NarrowParameter& parameter,
                          const UpdateContext& context) const {
    return false;
  }
  // ConfigError in one line where this parameter's step cannot run on a device.
  virtual Status CheckOnDevice(const TensorSpec& spec, const StateTreatment& treatment) const {
    return OkStatus();
  }
  // Persistent bytes of state for one parameter, for the memory estimate.
  virtual int64_t StateBytes(const TensorSpec& spec,
                             const StateTreatment& treatment = {}) const = 0;
  // Whether roles matter: it keeps one number a block.
  virtual bool uses_roles() const { return false; }
};

}  // namespace tw
