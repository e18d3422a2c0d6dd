#include "optim/strategy/masha_steps.h"

#include <cstring>

#include "optim/numbers.h"
#include "optim/strategy/client_turns.h"

namespace tw {
namespace {

// Of the step's shared stream; DrawClients uses the small ones.
constexpr uint64_t kCoin = uint64_t{1} << 40;

void Copy(TensorView from, TensorView to) {
  if (to.numel) std::memcpy(to.data, from.data, static_cast<size_t>(to.bytes()));
}

// w has the dtype of states, the working copy the parameter's.
void PutReference(TensorView w, TensorView value) {
  WithNumbers(value.dtype, [&](auto numbers) {
    using N = decltype(numbers);
    const auto* const from = Elements<typename N::State>(w);
    for (int64_t i = 0; i < value.numel; ++i) N::Put(value, i, from[i]);
  });
}

// z <- tau*z + (1-tau)*w - gamma*F.
void Look(TensorView z, TensorView w, TensorView f, double tau, double gamma) {
  WithNumbers(z.dtype, [&](auto numbers) {
    using N = decltype(numbers);
    using T = typename N::State;
    const T own = static_cast<T>(tau), rest = static_cast<T>(1 - tau), step = static_cast<T>(gamma);
    const T *const at = Elements<T>(w), *const slope = Elements<T>(f);
    for (int64_t i = 0; i < z.numel; ++i) {
      N::Put(z, i, own * N::Get(z, i) + rest * at[i] - step * slope[i]);
    }
  });
}

// value <- tau*value + (1-tau)*w; grad <- grad + F.
void Move(const ParameterView& z, TensorView w, TensorView f, double tau) {
  WithNumbers(z.value.dtype, [&](auto numbers) {
    using N = decltype(numbers);
    using T = typename N::State;
    const T own = static_cast<T>(tau), rest = static_cast<T>(1 - tau);
    const T *const at = Elements<T>(w), *const slope = Elements<T>(f);
    for (int64_t i = 0; i < z.value.numel; ++i) {
      N::Put(z.value, i, own * N::Get(z.value, i) + rest * at[i]);
      N::Put(z.grad, i, N::Get(z.grad, i) + slope[i]);
    }
  });
}

// grad <- grad - kept, of the dtype of states.
void TakeOff(TensorView kept, TensorView grad) {
  WithNumbers(grad.dtype, [&](auto numbers) {
    using N = decltype(numbers);
    const auto* const k = Elements<typename N::State>(kept);
    for (int64_t i = 0; i < grad.numel; ++i) N::Put(grad, i, N::Get(grad, i) - k[i]);
  });
}

// kept <- grad; grad <- grad - what was kept.
void KeepAndTakeOff(TensorView grad, TensorView kept) {
  WithNumbers(grad.dtype, [&](auto numbers) {
    using N = decltype(numbers);
    auto* const k = Elements<typename N::State>(kept);
    for (int64_t i = 0; i < grad.numel; ++i) {
      const auto g = N::Get(grad, i);
      N::Put(grad, i, g - k[i]);
      k[i] = g;
    }
  });
}

// f <- keep*f + share*mean.
void AddShare(TensorView mean, double keep, double share, TensorView f) {
  WithNumbers(mean.dtype, [&](auto numbers) {
    using N = decltype(numbers);
    using T = typename N::State;
    const T old = static_cast<T>(keep), part = static_cast<T>(share);
    T* const to = Elements<T>(f);
    for (int64_t i = 0; i < mean.numel; ++i) to[i] = old * to[i] + part * N::Get(mean, i);
  });
}

void CopyToState(TensorView value, TensorView w) {
  WithNumbers(value.dtype, [&](auto numbers) {
    using N = decltype(numbers);
    auto* const to = Elements<typename N::State>(w);
    for (int64_t i = 0; i < value.numel; ++i) to[i] = N::Get(value, i);
  });
}

StepResult Skipped() {
  StepResult result;
  result.skip = Skip::kEverywhere;
  result.why = "a gradient or message is not finite; the step is skipped on all ranks";
  return result;
}

}  // namespace

int64_t MashaSteps::StateBytes(const TensorSpec& spec) const {
  return (kept() ? 3 : 2) * spec.numel() * DTypeBytes(MomentDType(spec.dtype));
}

TensorView MashaSteps::Scratch(int slot, TensorView like) const {
  return {scratch_.Get<uint8_t>(slot, static_cast<size_t>(like.bytes())).data(), like.dtype,
          like.numel};
}

StatusOr<bool> MashaSteps::NewReference(StepMachine& machine) const {
  TurnsCall call;
  call.dense = true;
  const int64_t batches = config_.reference_batches;
  call.work = [&](Client& client) -> StatusOr<bool> {
    const auto parameters = client.parameters();
    for (int64_t b = 0; b < batches; ++b) {
      TW_RETURN_IF_ERROR(client.ComputeGradients(1 + b).status());
      for (size_t p = 0; p < parameters.size() && batches > 1; ++p) {
        const TensorView grad = parameters[p].grad;
        const TensorView sum =
            Scratch(static_cast<int>(p), {nullptr, MomentDType(grad.dtype), grad.numel});
        b + 1 < batches ? AddGradient(grad, b == 0, sum) : FinishMean(sum, batches, grad);
      }
    }
    for (size_t p = 0; p < parameters.size() && kept(); ++p) {
      KeepAndTakeOff(parameters[p].grad, client.Slot("F_m", p));
    }
    return true;
  };
  TW_ASSIGN_OR_RETURN(const TurnsResult turns, machine.Turns(call));
  if (turns.arrived == 0) return false;
  const double share = kept() ? static_cast<double>(turns.arrived) / machine.num_clients() : 1.0;
  const auto parameters = machine.parameters();
  for (size_t p = 0; p < parameters.size(); ++p) {
    CopyToState(parameters[p].value, machine.Slot("w", p));
    AddShare(parameters[p].grad, kept() ? 1 : 0, share, machine.Slot("F", p));
  }
  return true;
}

StatusOr<TurnsResult> MashaSteps::Differences(StepMachine& machine) const {
  const size_t count = machine.parameters().size();
  std::vector<TensorView> w(count), f(count);
  for (size_t p = 0; p < count; ++p) {
    w[p] = machine.Slot("w", p);
    f[p] = machine.Slot("F", p);
  }
  const double tau = config_.tau, gamma = machine.lr();
  TurnsCall call;
  call.clients = DrawClients(machine, config_.participation, &drawn_);
  call.moves = true;
  call.downlink_vectors = 0;  // z follows from what was broadcast
  call.work = [&](Client& client) -> StatusOr<bool> {
    const auto parameters = client.parameters();
    const auto half = [&](size_t p) {
      return Scratch(static_cast<int>(2 * p), parameters[p].value);
    };
    const auto at_w = [&](size_t p) {
      const TensorView grad = parameters[p].grad;
      return Scratch(static_cast<int>(2 * p + 1), {nullptr, MomentDType(grad.dtype), grad.numel});
    };
    for (size_t p = 0; p < count; ++p) {
      Look(parameters[p].value, w[p], f[p], tau, gamma);
      if (kept()) continue;
      Copy(parameters[p].value, half(p));
      PutReference(w[p], parameters[p].value);
    }
    if (!kept()) {
      TW_RETURN_IF_ERROR(client.ComputeGradients(0).status());
      for (size_t p = 0; p < count; ++p) {
        CopyToState(parameters[p].grad, at_w(p));
        Copy(half(p), parameters[p].value);
      }
    }
    TW_RETURN_IF_ERROR(client.ComputeGradients(0).status());
    for (size_t p = 0; p < count; ++p) {
      TakeOff(kept() ? client.Slot("F_m", p) : at_w(p), parameters[p].grad);
    }
    return true;
  };
  return machine.Turns(call);
}

StatusOr<StepResult> MashaSteps::Step(StepMachine& machine) const {
  const auto parameters = machine.parameters();
  const std::string first = "strategy/" + parameters[0].spec->name + "/w";
  if (!machine.state().Find(first)) {
    TW_ASSIGN_OR_RETURN(const bool known, NewReference(machine));
    if (!known) return Skipped();
  }
  TW_ASSIGN_OR_RETURN(const TurnsResult turns, Differences(machine));
  if (turns.arrived == 0) return Skipped();
  std::vector<TensorView> mean;
  for (const ParameterView& p : parameters) mean.push_back(p.grad);
  TW_RETURN_IF_ERROR(machine.Broadcast(mean));
  for (size_t p = 0; p < parameters.size(); ++p) {
    Move(parameters[p], machine.Slot("w", p), machine.Slot("F", p), config_.tau);
  }
  TW_RETURN_IF_ERROR(machine.ApplyUpdate());
  const double coin = static_cast<double>(machine.shared_stream().Uniform(kCoin));
  if (coin < 1 - config_.tau) TW_RETURN_IF_ERROR(NewReference(machine).status());
  StepResult result;
  result.loss = turns.loss;
  return result;
}

}  // namespace tw
