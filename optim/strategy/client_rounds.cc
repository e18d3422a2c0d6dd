#include "optim/strategy/client_rounds.h"

#include "optim/numbers.h"
#include "optim/strategy/client_turns.h"

namespace tw {
namespace {

// y -= eta*((g - c_i) + c); c and c_i may be without memory.
void LocalStep(const ParameterView& y, double eta, TensorView own, TensorView shared) {
  WithNumbers(y.value.dtype, [&](auto numbers) {
    using N = decltype(numbers);
    using T = typename N::State;
    const T step = static_cast<T>(eta);
    const T *const ci = Elements<T>(own), *const c = Elements<T>(shared);
    for (int64_t i = 0; i < y.value.numel; ++i) {
      T g = N::Get(y.grad, i);
      if (c) g = (g - ci[i]) + c[i];
      N::Put(y.value, i, N::Get(y.value, i) - step * g);
    }
  });
}

// mean = scale*(mean + c); c += share*mean, of the mean as it was. c may be without memory.
void ServerDirection(TensorView mean, double scale, double share, TensorView control) {
  WithNumbers(mean.dtype, [&](auto numbers) {
    using N = decltype(numbers);
    using T = typename N::State;
    const T s = static_cast<T>(scale), part = static_cast<T>(share);
    T* const c = Elements<T>(control);
    for (int64_t i = 0; i < mean.numel; ++i) {
      const T m = N::Get(mean, i);
      N::Put(mean, i, c ? s * (m + c[i]) : s * m);
      if (c) c[i] += part * m;
    }
  });
}

}  // namespace

int64_t ClientRounds::StateBytes(const TensorSpec& spec) const {
  return control_ ? 2 * spec.numel() * DTypeBytes(MomentDType(spec.dtype)) : 0;
}

// Leaves G in the gradients. What the last step would move is of no use to anyone.
Status ClientRounds::LocalSteps(Client& client, double lr,
                                std::span<const TensorView> control) const {
  const auto parameters = client.parameters();
  const auto sum_of = [&](size_t p) {
    const DType dtype = MomentDType(parameters[p].value.dtype);
    const int64_t numel = parameters[p].value.numel;
    return TensorView{
        scratch_.Get<uint8_t>(static_cast<int>(p), static_cast<size_t>(numel * DTypeBytes(dtype)))
            .data(),
        dtype, numel};
  };
  for (int64_t k = 0; k < config_.local_steps; ++k) {
    TW_RETURN_IF_ERROR(client.ComputeGradients(k).status());
    const bool last = k + 1 == config_.local_steps;
    if (config_.local_steps == 1) break;
    for (size_t p = 0; p < parameters.size(); ++p) {
      if (last) {
        FinishMean(sum_of(p), config_.local_steps, parameters[p].grad);
        continue;
      }
      AddGradient(parameters[p].grad, k == 0, sum_of(p));
      LocalStep(parameters[p], lr, control_ ? ControlOf(client, p) : TensorView{}, control[p]);
    }
  }
  return OkStatus();
}

StatusOr<StepResult> ClientRounds::Step(StepMachine& machine) const {
  const auto parameters = machine.parameters();
  std::vector<TensorView> control(parameters.size());
  for (size_t p = 0; p < control.size() && control_; ++p) control[p] = machine.Slot("c", p);

  TurnsCall call;
  call.clients = DrawClients(machine, config_.participation, &drawn_);
  call.moves = config_.local_steps > 1;
  call.downlink_vectors = control_ ? 2 : 1;
  call.work = [&](Client& client) -> StatusOr<bool> {
    TW_RETURN_IF_ERROR(LocalSteps(client, machine.lr(), control));
    for (size_t p = 0; p < control.size(); ++p) {
      MakeMessage(client, p, client.parameters()[p].grad);
    }
    return true;
  };
  if (control_) {
    call.sent = [](Client& client, size_t parameter, OwnDecoder own) {
      return own(1.0f, ControlOf(client, parameter));
    };
  }
  TW_ASSIGN_OR_RETURN(const TurnsResult turns, machine.Turns(call));
  StepResult result;
  result.loss = turns.loss;
  if (turns.arrived == 0) {
    result.skip = Skip::kEverywhere;
    result.why = "a gradient or message is not finite; the round is thrown away on all ranks";
    return result;
  }
  const double scale = config_.global_lr * static_cast<double>(config_.local_steps);
  const double share = static_cast<double>(turns.arrived) / machine.num_clients();
  for (size_t p = 0; p < control.size(); ++p) {
    ServerDirection(parameters[p].grad, scale, share, control[p]);
  }
  TW_RETURN_IF_ERROR(machine.ApplyUpdate());
  return result;
}

}  // namespace tw
