// marina: compressed differences of gradients, with now and then a dense round (Gorbunov,
// Burlachenko, Li, Richtarik, "MARINA: faster non-convex distributed learning with compression",
// arXiv 2102.07845).
//   coin with probability p, the same on all ranks, heads in the first round:
//   heads:  send g_i(x) dense;                   G <- mean g_i(x)
//   tails:  send d_i = C(g_i(x) - g_i(x_old));   G <- G + mean d_i       both on the same batch
//   x_old <- x;   x <- optimizer(x, G)           plain steps: x - lr*G
// C is the run's compressor and should be unbiased; feedback none: nothing that is lost is sent
// later, the next dense round makes up for it. The estimate G is biased, and it does not need to
// know who sent what: clients hold nothing. Theory: lr <= 1 / (L (1 + sqrt(omega (1-p) / (n p))));
// p = bytes of a compressed message over those of a dense one spends equally on both. p = 1 is
// strategy sync, bit for bit; without compression it is sync to rounding.
//
// The coin is drawn from randomness that all ranks share and costs no bit. Clients are sent x
// dense, once a round. A client that finds something not finite is left out of that round's mean;
// when nobody arrives x, x_old and G stay, and the next difference spans both rounds.
// State: G in units of the gradient and x_old in units of the parameter, shaped as the parameter,
// the same on all ranks. A compressed round costs two gradients.
// Left out: partial participation (PP-MARINA), the finite-sum estimator (VR-MARINA).

#include <cstring>

#include "core/api/strategy.h"
#include "core/base/workspace.h"
#include "optim/numbers.h"

namespace tw {
namespace {

struct MarinaConfig {
  double dense_probability = 0.1;
  static FieldList<MarinaConfig> Fields() {
    return FieldList<MarinaConfig>().Real(
        "dense_probability", &MarinaConfig::dense_probability, {0, 1, kOpenLow},
        "how probable a dense round is; about the compressed share of bytes. 1: sync");
  }
};

void Store(TensorView from, TensorView state) {
  WithNumbers(from.dtype, [&](auto numbers) {
    using N = decltype(numbers);
    auto* const to = Elements<typename N::State>(state);
    for (int64_t i = 0; i < from.numel; ++i) to[i] = N::Get(from, i);
  });
}

void Load(TensorView state, TensorView to) {
  WithNumbers(to.dtype, [&](auto numbers) {
    using N = decltype(numbers);
    const auto* const from = Elements<typename N::State>(state);
    for (int64_t i = 0; i < to.numel; ++i) N::Put(to, i, from[i]);
  });
}

class Marina : public Strategy {
 public:
  explicit Marina(const MarinaConfig& config) : p_(config.dense_probability) {}

  // G adds up what was decoded.
  bool exact_mean() const override { return true; }
  int64_t StateBytes(const TensorSpec& spec) const override {
    return 2 * spec.numel() * DTypeBytes(MomentDType(spec.dtype));
  }
  std::vector<std::string> Warnings(const TensorSpec&,
                                    const Compressor& compressor) const override {
    if (compressor.traits().lossless || compressor.traits().unbiased) return {};
    return {
        "marina wants an unbiased compressor: what a biased one leaves out adds up in G until "
        "the next dense round"};
  }

  StatusOr<StepResult> Step(StepMachine& machine) const override {
    const auto parameters = machine.parameters();
    const bool dense = !HasEstimate(machine) || machine.shared_stream().Uniform(0) < p_;
    TurnsCall call;
    call.dense = dense;
    call.moves = !dense;
    call.work = [&](Client& client) -> StatusOr<bool> {
      if (!dense) TW_RETURN_IF_ERROR(GradientsAtOld(machine, client));
      TW_RETURN_IF_ERROR(client.ComputeGradients(0).status());
      if (!dense) SubtractOld(client);
      return true;
    };
    TW_ASSIGN_OR_RETURN(const TurnsResult turns, machine.Turns(call));
    StepResult result;
    result.loss = turns.loss;
    if (turns.arrived == 0) {
      result.skip = Skip::kEverywhere;
      result.why = "a gradient is not finite; the round is thrown away on all ranks";
      return result;
    }
    for (size_t p = 0; p < parameters.size(); ++p) {
      Advance(parameters[p].grad, dense, machine.Slot(kEstimate, p));
      Store(parameters[p].value, machine.Slot(kOld, p));
    }
    TW_RETURN_IF_ERROR(machine.ApplyUpdate());
    return result;
  }

 private:
  static constexpr char kEstimate[] = "G", kOld[] = "x_old";

  // Not before a first dense round has arrived, in this run or the one that it goes on from.
  static bool HasEstimate(StepMachine& machine) {
    for (const ParameterView& p : machine.parameters()) {
      if (!machine.state().Find("strategy/" + p.spec->name + "/" + kEstimate)) return false;
    }
    return true;
  }

  // Mean and estimate become G, or G + mean.
  static void Advance(TensorView mean, bool dense, TensorView estimate) {
    WithNumbers(mean.dtype, [&](auto numbers) {
      using N = decltype(numbers);
      auto* const g = Elements<typename N::State>(estimate);
      for (int64_t i = 0; i < mean.numel; ++i) {
        g[i] = dense ? N::Get(mean, i) : g[i] + N::Get(mean, i);
        N::Put(mean, i, g[i]);
      }
    });
  }

  // Memory for a vector like the parameter's value.
  TensorView Kept(int first, size_t p, TensorView like) const {
    const auto room =
        scratch_.Get<uint8_t>(2 * static_cast<int>(p) + first, static_cast<size_t>(like.bytes()));
    return {room.data(), like.dtype, like.numel};
  }
  static void Copy(TensorView from, TensorView to) {
    if (from.numel) std::memcpy(to.data, from.data, static_cast<size_t>(from.bytes()));
  }

  // The working copy goes back to x_old for one gradient, which is kept, and is x again.
  Status GradientsAtOld(StepMachine& machine, Client& client) const {
    const auto parameters = client.parameters();
    for (size_t p = 0; p < parameters.size(); ++p) {
      Copy(parameters[p].value, Kept(0, p, parameters[p].value));
      Load(machine.Slot(kOld, p), parameters[p].value);
    }
    TW_RETURN_IF_ERROR(client.ComputeGradients(0).status());
    for (size_t p = 0; p < parameters.size(); ++p) {
      Copy(parameters[p].grad, Kept(1, p, parameters[p].grad));
      Copy(Kept(0, p, parameters[p].value), parameters[p].value);
    }
    return OkStatus();
  }
  void SubtractOld(Client& client) const {
    const auto parameters = client.parameters();
    for (size_t p = 0; p < parameters.size(); ++p) {
      const TensorView grad = parameters[p].grad, old = Kept(1, p, grad);
      WithNumbers(grad.dtype, [&](auto numbers) {
        using N = decltype(numbers);
        for (int64_t i = 0; i < grad.numel; ++i) N::Put(grad, i, N::Get(grad, i) - N::Get(old, i));
      });
    }
  }

  double p_;
  // Memory, not state: nothing in it outlives a turn. One thread uses a strategy.
  mutable Workspace scratch_;
};

StatusOr<std::unique_ptr<Strategy>> Create(const MarinaConfig& config) {
  return std::make_unique<Marina>(config);
}

TW_REGISTER(Strategy, marina, 0, MarinaConfig, Create,
            "compressed differences of gradients between dense rounds, for unbiased compressors");

}  // namespace
}  // namespace tw
