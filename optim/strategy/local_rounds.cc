#include "optim/strategy/local_rounds.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/api/convert.h"

namespace tw {
namespace {

TensorView OtherOf(StateBag& state, const TensorSpec& spec, bool* created = nullptr) {
  return state.Slot("strategy/" + spec.name + "/other", spec.shape, spec.dtype, Reshard::kKeepMean,
                    created);
}

void Copy(TensorView from, TensorView to) {
  if (to.numel > 0) std::memcpy(to.data, from.data, static_cast<size_t>(to.bytes()));
}

void Exchange(TensorView a, TensorView b) {
  const MutableByteSpan x = a.mutable_raw(), y = b.mutable_raw();
  std::swap_ranges(x.begin(), x.end(), y.begin());
}

}  // namespace

bool LocalRounds::EndsRound(const StepMachine& machine) const {
  const int64_t done = machine.step() + 1;
  return done % local_steps_ == 0 || done == machine.total_steps();
}

StatusOr<StepResult> LocalRounds::Step(StepMachine& machine) const {
  StepResult result;
  TW_ASSIGN_OR_RETURN(const LocalGradients own, machine.ComputeLocalGradients());
  result.loss = own.loss;
  if (own.finite) {
    TW_RETURN_IF_ERROR(machine.ApplyLocalUpdate());
  } else {
    result.skip = Skip::kHere;
    result.why = "non-finite gradient; this rank leaves out this local step";
  }
  result.replicas_equal = EndsRound(machine);
  if (result.replicas_equal) TW_RETURN_IF_ERROR(EndRound(machine, &result));
  return result;
}

Status LocalRounds::EndRound(StepMachine& machine, StepResult* result) const {
  StateBag& state = machine.state();
  std::vector<TensorView> moved;
  for (const ParameterView& p : machine.parameters()) {
    Copy(OtherOf(state, *p.spec), p.grad);
    AddScaled(p.grad, p.value, -1.0f);
    moved.push_back(p.grad);
  }
  TW_ASSIGN_OR_RETURN(const bool finite, machine.Exchange(moved));
  if (!finite) {
    result->skip = Skip::kEverywhere;
    result->why = "the parameters of a rank are not finite; this round is thrown away on all ranks";
    if (!std::all_of(moved.begin(), moved.end(), AllFinite)) machine.ForgetMoments();
  }
  for (const ParameterView& p : machine.parameters()) {
    const TensorView anchor = OtherOf(state, *p.spec);
    if (finite) MoveAnchor({p.spec, anchor, p.grad}, state);
    Copy(anchor, p.value);
  }
  return OkStatus();
}

Status LocalRounds::Continue(StepMachine& machine) const {
  for (const ParameterView& p : machine.parameters()) {
    bool created = false;
    const TensorView other = OtherOf(machine.state(), *p.spec, &created);
    created ? Copy(p.value, other) : Exchange(p.value, other);
  }
  return OkStatus();
}

Status LocalRounds::Pause(StepMachine& machine) const {
  for (const ParameterView& p : machine.parameters()) {
    Exchange(p.value, OtherOf(machine.state(), *p.spec));
  }
  return OkStatus();
}

}  // namespace tw
