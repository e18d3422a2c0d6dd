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

// What was under way when the round was sent.
TensorView SentOf(StateBag& state, const TensorSpec& spec) {
  return state.Slot("strategy/" + spec.name + "/sent", spec.shape, spec.dtype, Reshard::kKeepMean);
}
TensorView MovedOf(StateBag& state, const TensorSpec& spec) {
  return state.Slot("strategy/" + spec.name + "/moved", spec.shape, spec.dtype,
                    Reshard::kReplicated);
}

// A late round on its way into the anchor.
enum Pending : int64_t { kNone = 0, kUnderWay = 1, kArrived = 2, kThrownAway = 3 };
constexpr char kPending[] = "strategy/rounds/pending";
struct Late {
  int64_t pending = kNone;
  int64_t due = 0;  // applied when so many steps are done
};

// Null when no round has ever been late.
Late* LateOf(StateBag& state) {
  const StateSlot* slot = state.Find(kPending);
  return slot ? static_cast<Late*>(slot->view.data) : nullptr;
}

// The anchor does not move yet.
Status WaitForRound(StepMachine& machine) {
  Late* late = LateOf(machine.state());
  if (!late || late->pending != kUnderWay) return OkStatus();
  TW_ASSIGN_OR_RETURN(const bool finite, machine.FinishStarted());
  late->pending = finite ? kArrived : kThrownAway;
  return OkStatus();
}

void GiveUpRound(StepMachine& machine, StepResult* result, bool own_finite) {
  result->skip = Skip::kEverywhere;
  result->why = "the parameters of a rank are not finite; this round is thrown away on all ranks";
  if (!own_finite) machine.ForgetMoments();
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
  const bool last = machine.step() + 1 == machine.total_steps();
  const Late* late = LateOf(machine.state());
  if (late && late->pending != kNone && (last || machine.step() + 1 >= late->due)) {
    TW_RETURN_IF_ERROR(TakeRound(machine, &result));
  }
  result.replicas_equal = EndsRound(machine) && (delay_steps_ == 0 || last);
  if (result.replicas_equal) {
    TW_RETURN_IF_ERROR(EndRound(machine, &result));
  } else if (EndsRound(machine)) {
    TW_RETURN_IF_ERROR(SendRound(machine));
  }
  return result;
}

Status LocalRounds::SendRound(StepMachine& machine) const {
  StateBag& state = machine.state();
  std::vector<TensorView> moved;
  for (const ParameterView& p : machine.parameters()) {
    Copy(p.value, SentOf(state, *p.spec));
    moved.push_back(MovedOf(state, *p.spec));
    Copy(OtherOf(state, *p.spec), moved.back());
    AddScaled(moved.back(), p.value, -1.0f);
  }
  state.Slot(kPending, {2}, DType::kI64, Reshard::kReplicated);
  *LateOf(state) = {kUnderWay, machine.step() + 1 + delay_steps_};
  return machine.StartExchange(moved);
}

Status LocalRounds::TakeRound(StepMachine& machine, StepResult* result) const {
  StateBag& state = machine.state();
  TW_RETURN_IF_ERROR(WaitForRound(machine));
  const bool finite = LateOf(state)->pending == kArrived;
  LateOf(state)->pending = kNone;
  bool own_finite = true;
  for (const ParameterView& p : machine.parameters()) {
    const TensorView anchor = OtherOf(state, *p.spec), sent = SentOf(state, *p.spec);
    if (finite) {
      MoveAnchor({p.spec, anchor, MovedOf(state, *p.spec)}, state);
      AddScaled(p.value, sent, -1.0f);
      AddScaled(p.value, anchor, 1.0f);
    } else {
      own_finite = own_finite && AllFinite(sent);
      Copy(anchor, p.value);
    }
  }
  if (!finite) GiveUpRound(machine, result, own_finite);
  return OkStatus();
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
    GiveUpRound(machine, result, std::all_of(moved.begin(), moved.end(), AllFinite));
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
  TW_RETURN_IF_ERROR(WaitForRound(machine));
  for (const ParameterView& p : machine.parameters()) {
    Exchange(p.value, OtherOf(machine.state(), *p.spec));
  }
  return OkStatus();
}

}  // namespace tw
