// choco: every client has a model of its own and talks to its neighbours only (Koloskova, Stich,
// Jaggi, "Decentralized stochastic optimization and gossip algorithms with compressed
// communication", CHOCO-SGD, arXiv 1902.00340).
//   hat_j, what client j is known to have: the same number everywhere, since all add the same q_j
//   x_i <- x_i + gossip_step * sum_j w_ij (hat_j - hat_i)      j: the neighbours of i
//   x_i <- x_i - lr*g_i(x_i)                                   own batch 0 of the step
//   send q_i = C(x_i - hat_i) to the neighbours;   hat_i <- hat_i + decode(q_i) there and here
// The paper's round ends with the gossip; ours begins with it, because a client acts in its turn
// only: the sequence is the same, and a run ends before its last gossip. C is the run's compressor
// and may be biased; feedback none, since hat is a memory of what was sent already. With zero
// gradients it is CHOCO-Gossip: all x_i tend to the mean of where they began, if gossip_step is
// small enough for C. w_ij = w_ji = 1/(degree + 1) keeps the mean of the x_i.
//
// x_i lives in the client's slots and moves in its turn. What others sent reaches a strategy
// through TurnsCall::received alone, after all turns, for each message and on every rank; so hat_j,
// of which every neighbour has an equal copy, is kept once a rank and not once a neighbour, and the
// neighbourhood is a matter of who reads which. In `train` a rank sees means only, not messages:
// Place::kLabOnly.
// The shared parameters are the mean of the hat_j, which everybody in the lab can form: that is
// what a problem measures. Steps are plain, with the run's learning rate after its schedule; the
// optimizer has no part. Nothing comes down from a server: downlink 0. Uplink counts a message
// once; on a ring it goes to two neighbours (LabRun::copies).
// A client that finds something not finite keeps the x_i of before and sends nothing; it misses
// one gossip, and the mean moves by that.
// State: x_i a client; hat_j one a client on every rank; shaped as the parameter, in its units.
// Left out: changing or directed graphs, own weights, momentum.

#include <algorithm>

#include "core/api/strategy.h"
#include "optim/numbers.h"

namespace tw {
namespace {

struct ChocoConfig {
  double gossip_step = 0.1;
  std::string topology = "ring";
  static FieldList<ChocoConfig> Fields() {
    return FieldList<ChocoConfig>()
        .Real("gossip_step", &ChocoConfig::gossip_step, {0, 1, kOpenLow},
              "part of the way to the neighbours' mean; smaller for coarser compressors")
        .Text("topology", &ChocoConfig::topology, {"ring", "complete"},
              "who is whose neighbour: the one before and the one after, or everybody");
  }
};

// Ascending.
std::vector<int> NeighboursOf(int client, int n, bool ring) {
  std::vector<int> out;
  for (int j = 0; j < n; ++j) {
    const int apart = (j - client + n) % n;
    if (apart != 0 && (!ring || apart == 1 || apart == n - 1)) out.push_back(j);
  }
  return out;
}

class Choco : public Strategy {
 public:
  explicit Choco(const ChocoConfig& config)
      : gossip_step_(config.gossip_step), ring_(config.topology == "ring") {}

  Place place() const override { return Place::kLabOnly; }
  // Whatever returns another estimate than the mean of what was sent does not fit the hats.
  bool exact_mean() const override { return true; }

  StatusOr<StepResult> Step(StepMachine& machine) const override {
    const auto parameters = machine.parameters();
    const int n = machine.num_clients();
    Hats hats(machine);
    TurnsCall call;
    call.moves = true;
    call.downlink_vectors = 0;
    call.work = [&](Client& client) -> StatusOr<bool> {
      const std::vector<int> neighbours = NeighboursOf(client.id(), n, ring_);
      for (size_t p = 0; p < parameters.size(); ++p) Gossip(client, p, neighbours, hats);
      TW_RETURN_IF_ERROR(client.ComputeGradients(0).status());
      for (size_t p = 0; p < parameters.size(); ++p) MakeMessage(client, p, machine.lr(), hats);
      return true;
    };
    call.received = [&](int client, size_t p, OwnDecoder body) {
      return body(1.0f, hats.Of(client, p));
    };
    TW_ASSIGN_OR_RETURN(const TurnsResult turns, machine.Turns(call));
    StepResult result;
    result.loss = turns.loss;
    if (turns.arrived == 0) {
      result.skip = Skip::kEverywhere;
      result.why = "no client's model is finite; nobody moves";
      return result;
    }
    for (size_t p = 0; p < parameters.size(); ++p) hats.WriteMean(p, parameters[p].value);
    return result;
  }

 private:
  // All clients' public copies, in the server's slots; at first they are the parameters, which all
  // know.
  class Hats {
   public:
    explicit Hats(StepMachine& machine)
        : n_(machine.num_clients()), num_parameters_(machine.parameters().size()) {
      for (int j = 0; j < n_; ++j) {
        const std::string name = "hat" + std::to_string(j);
        for (size_t p = 0; p < num_parameters_; ++p) {
          bool created = false;
          views_.push_back(machine.Slot(name.c_str(), p, &created));
          if (created) Fill(machine.parameters()[p].value, views_.back());
        }
      }
    }
    TensorView Of(int client, size_t p) const {
      return views_[static_cast<size_t>(client) * num_parameters_ + p];
    }
    // In client order: the same bits on every rank.
    void WriteMean(size_t p, TensorView value) const {
      WithNumbers(value.dtype, [&](auto numbers) {
        using N = decltype(numbers);
        using T = typename N::State;
        for (int64_t i = 0; i < value.numel; ++i) {
          T sum = 0;
          for (int j = 0; j < n_; ++j) sum += Elements<T>(Of(j, p))[i];
          N::Put(value, i, sum / static_cast<T>(n_));
        }
      });
    }

   private:
    static void Fill(TensorView value, TensorView hat) {
      WithNumbers(value.dtype, [&](auto numbers) {
        using N = decltype(numbers);
        for (int64_t i = 0; i < value.numel; ++i) {
          Elements<typename N::State>(hat)[i] = N::Get(value, i);
        }
      });
    }

    int n_;
    size_t num_parameters_;
    std::vector<TensorView> views_;
  };

  // Moves x_i, which is hat_i at first, towards the neighbours; the working copy follows.
  void Gossip(Client& client, size_t p, const std::vector<int>& neighbours,
              const Hats& hats) const {
    bool created = false;
    const TensorView own = client.Slot("x", p, &created), hat = hats.Of(client.id(), p);
    const TensorView working = client.parameters()[p].value;
    WithNumbers(working.dtype, [&](auto numbers) {
      using N = decltype(numbers);
      using T = typename N::State;
      const T weight = static_cast<T>(gossip_step_ / (static_cast<double>(neighbours.size()) + 1));
      T* const x = Elements<T>(own);
      const T* const here = Elements<T>(hat);
      if (created) std::copy(here, here + hat.numel, x);
      for (const int j : neighbours) {
        const T* const there = Elements<T>(hats.Of(j, p));
        for (int64_t i = 0; i < hat.numel; ++i) x[i] += weight * (there[i] - here[i]);
      }
      for (int64_t i = 0; i < hat.numel; ++i) N::Put(working, i, x[i]);
    });
  }

  // The gradient has been taken: x_i moves by it, and what is new in x_i takes its place.
  static void MakeMessage(Client& client, size_t p, double lr, const Hats& hats) {
    const TensorView own = client.Slot("x", p), hat = hats.Of(client.id(), p);
    const TensorView grad = client.parameters()[p].grad;
    WithNumbers(grad.dtype, [&](auto numbers) {
      using N = decltype(numbers);
      using T = typename N::State;
      T* const x = Elements<T>(own);
      const T* const here = Elements<T>(hat);
      for (int64_t i = 0; i < grad.numel; ++i) {
        x[i] -= static_cast<T>(lr) * N::Get(grad, i);
        N::Put(grad, i, x[i] - here[i]);
      }
    });
  }

  double gossip_step_;
  bool ring_;
};

StatusOr<std::unique_ptr<Strategy>> Create(const ChocoConfig& config) {
  return std::make_unique<Choco>(config);
}

TW_REGISTER(Strategy, choco, 0, ChocoConfig, Create,
            "a model a client, compressed gossip with the neighbours on a ring; lab only");

}  // namespace
}  // namespace tw
