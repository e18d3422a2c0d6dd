#include "core/engine/turn_machine.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/engine/norms.h"

namespace tw {
namespace {

DType StateType(const TensorSpec& spec) {
  return spec.dtype == DType::kF64 ? DType::kF64 : DType::kF32;
}

TensorView SlotOf(StateBag& state, const TensorSpec& spec, const char* name, Reshard reshard,
                  bool* created) {
  const std::string full = "strategy/" + spec.name + "/" + name;
  const TensorView view = state.Slot(full, spec.shape, StateType(spec), reshard, created);
  state.Touch(full);
  return view;
}

void Copy(TensorView from, void* to) {
  if (from.numel) std::memcpy(to, from.data, static_cast<size_t>(from.bytes()));
}

}  // namespace

class TurnMachine::Own : public Client {
 public:
  explicit Own(TurnMachine* machine) : machine_(machine) {}
  int id() const override { return machine_->comm_->rank(); }
  std::span<const ParameterView> parameters() const override { return machine_->reducer_->views(); }
  StatusOr<double> ComputeGradients(int64_t batch) override {
    TW_ASSIGN_OR_RETURN(machine_->loss_, machine_->LocalBackward(batch));
    return machine_->loss_;
  }
  TensorView Slot(const char* name, size_t parameter, bool* created) override {
    return SlotOf(*machine_->state_, *parameters()[parameter].spec, name, Reshard::kKeepMean,
                  created);
  }

 private:
  TurnMachine* machine_;
};

RngStream TurnMachine::shared_stream() const {
  return RngStream::Of(seed_, RngPurpose::kStrategy, static_cast<uint64_t>(step()), 0, kSharedRank);
}

TensorView TurnMachine::Slot(const char* name, size_t parameter, bool* created) {
  return SlotOf(*state_, *reducer_->views()[parameter].spec, name, Reshard::kReplicated, created);
}

Status TurnMachine::CheckTurn(const TurnsCall& call) const {
  if (!call.clients.empty() && call.clients.size() != static_cast<size_t>(comm_->size())) {
    return ConfigError("the strategy wants " + std::to_string(call.clients.size()) + " of " +
                       std::to_string(comm_->size()) +
                       " clients a step: in train all ranks take part, sampling is for the lab");
  }
  if (call.received) {
    return ConfigError("the strategy reads each client's message alone, which only the lab offers");
  }
  return OkStatus();
}

// Ends with the parameters as they were. A message that is not to be sent is marked as one that is
// not finite.
Status TurnMachine::Work(const TurnsCall& call) {
  const auto views = reducer_->views();
  shared_.resize(views.size());
  for (size_t p = 0; p < views.size() && call.moves; ++p) {
    Copy(views[p].value, shared_[p].Reserve(static_cast<size_t>(views[p].value.bytes())));
  }
  loss_ = std::numeric_limits<double>::quiet_NaN();
  Own own(this);
  const StatusOr<bool> sends = call.work(own);
  for (size_t p = 0; p < views.size() && call.moves; ++p) {
    const TensorView kept{shared_[p].data(), views[p].value.dtype, views[p].value.numel};
    Copy(kept, views[p].value.data);
  }
  TW_RETURN_IF_ERROR(sends);
  for (const ParameterView& p : views) {  // all bits set: NaN in every floating point type
    if (!*sends && p.grad.numel)
      std::memset(p.grad.data, 0xFF, static_cast<size_t>(p.grad.bytes()));
  }
  return OkStatus();
}

StatusOr<TurnsResult> TurnMachine::Turns(const TurnsCall& call) {
  TW_RETURN_IF_ERROR(CheckTurn(call));
  const auto views = reducer_->views();
  state_->BeginJournal();  // until all agree that everybody's message is finite
  TW_RETURN_IF_ERROR(Work(call));
  std::vector<TensorView> vectors;
  for (size_t p = 0; p < views.size(); ++p) {
    if (!call.out.empty()) Copy(views[p].grad, call.out[p].data);
    vectors.push_back(call.out.empty() ? views[p].grad : call.out[p]);
  }
  Own own(this);
  const std::function<Status(size_t, OwnDecoder)> sent = [&](size_t p, OwnDecoder decoder) {
    return call.sent(own, p, decoder);
  };
  double sums[] = {loss_};
  TW_ASSIGN_OR_RETURN(const ReduceOutcome outcome,
                      reducer_->Exchange(WireStep(static_cast<uint64_t>(step()), turns_++), vectors,
                                         sums, {call.dense, call.sent ? &sent : nullptr}));
  outcome.finite ? state_->CommitJournal() : state_->Rollback();
  TurnsResult result;
  result.loss = sums[0] / comm_->size();
  result.arrived = outcome.finite ? comm_->size() : 0;
  RecordTurn(outcome, result.loss);
  if (!outcome.finite) {
    for (const TensorView& v : vectors) std::memset(v.data, 0, static_cast<size_t>(v.bytes()));
  }
  return result;
}

}  // namespace tw
