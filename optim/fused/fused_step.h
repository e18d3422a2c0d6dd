#pragma once
// Fused steps: one pass over fp32 parameter, gradient and moments as they rest. Registered under
// the name of the StateCodec whose slots they read and write; a pair without one goes through
// tiles.h, with the same bits. On a device some take bf16 parameters too, and say whether they did.

#include "core/base/registry.h"
#include "core/kernels/optimizer.h"
#include "core/kernels/state_steps.h"
#include "optim/tiles.h"

namespace tw {

class FusedAdamW {
 public:
  using Interface = FusedAdamW;
  virtual ~FusedAdamW() = default;
  virtual bool on_host() const { return true; }  // false: tiles are the host's way
  virtual void Step(const ParameterView& parameter, const MomentState& m, const MomentState& v,
                    const kernels::AdamWCoefficients<float>& c) const = 0;
  virtual bool StepNarrow(const kernels::NarrowParameter& x, const MomentState& m,
                          const MomentState& v, const kernels::AdamWCoefficients<float>& c) const {
    return false;
  }
};

class FusedSgdm {
 public:
  using Interface = FusedSgdm;
  virtual ~FusedSgdm() = default;
  virtual void Step(const ParameterView& parameter, const MomentState& m,
                    const kernels::SgdmCoefficients<float>& c) const = 0;
  virtual bool StepNarrow(const kernels::NarrowParameter& x, const MomentState& m,
                          const kernels::SgdmCoefficients<float>& c) const {
    return false;
  }
};

// Made once a codec; null: there is none.
template <class Fused>
const Fused* FindFused(const StateCodec& codec) {
  static const auto* made = [] {
    auto* all = new std::map<std::string, std::unique_ptr<Fused>>;
    for (const std::string& name : Registry<Fused>::Get().names()) {
      auto step = Registry<Fused>::Get().Find(name)->make(ConfigSection{});
      TW_CHECK_OK(step);
      all->emplace(name, std::move(step).value());
    }
    return all;
  }();
  const auto it = made->find(codec.name());
  return it == made->end() ? nullptr : it->second.get();
}

inline kernels::CodedMoment CodedMomentOf(const MomentState& state) {
  return {{static_cast<uint8_t*>(state.slots[0].data), static_cast<size_t>(state.slots[0].numel)},
          state.slots[1].f32()};
}

template <class Step>
StatusOr<std::unique_ptr<typename Step::Interface>> CreateFused(const NoConfig&) {
  return std::make_unique<Step>();
}

}  // namespace tw
