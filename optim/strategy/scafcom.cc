// scafcom: SCAFFOLD with local momentum and one compressed vector up (Huang, Li, Li, "Stochastic
// controlled averaging for federated learning with communication compression", arXiv 2308.08165).
//   y_i: K steps y <- y - eta*(g_i(y) - c_i + c);  G_i = mean of the K gradients
//   v_i <- (1-beta)*v_i + beta*G_i;  send d_i = C(v_i - c_i);  c_i <- c_i + d_i
//   x <- x - eta_g*eta*K*(mean d_i + c);  c <- c + S/n*mean d_i   (client_rounds.h)
// C is the run's compressor and may be biased (top-k): v_i averages the gradients' noise away
// before it is selected from. v_i = 0 at first, so that the first rounds of a client move by beta
// of a step. Clients not drawn keep c_i and v_i. beta = 1 without compression is scaffold. State:
// c, c_i (client_rounds.h); v_i, shaped as the parameter, in units of the gradient.

#include "optim/numbers.h"
#include "optim/strategy/client_rounds.h"

namespace tw {
namespace {

struct ScafcomConfig : ClientRoundsConfig {
  double beta = 0.2;
  static FieldList<ScafcomConfig> Fields() {
    FieldList<ScafcomConfig> fields;
    AddFields(&fields);
    return fields.Real("beta", &ScafcomConfig::beta, {0, 1, kOpenLow},
                       "weight of a round's gradient in the client's running mean");
  }
};

class Scafcom : public ClientRounds {
 public:
  explicit Scafcom(const ScafcomConfig& config)
      : ClientRounds(config, /*control=*/true), beta_(config.beta) {}

  int64_t StateBytes(const TensorSpec& spec) const override {
    return ClientRounds::StateBytes(spec) + spec.numel() * DTypeBytes(MomentDType(spec.dtype));
  }

 protected:
  void MakeMessage(Client& client, size_t parameter, TensorView grad) const override {
    const TensorView own = ControlOf(client, parameter), mean = client.Slot("v_i", parameter);
    WithNumbers(grad.dtype, [&](auto numbers) {
      using N = decltype(numbers);
      using T = typename N::State;
      const T beta = static_cast<T>(beta_), rest = static_cast<T>(1 - beta_);
      const T* const ci = Elements<T>(own);
      T* const v = Elements<T>(mean);
      for (int64_t i = 0; i < grad.numel; ++i) {
        v[i] = rest * v[i] + beta * N::Get(grad, i);
        N::Put(grad, i, v[i] - ci[i]);
      }
    });
  }

 private:
  double beta_;
};

StatusOr<std::unique_ptr<Strategy>> Create(const ScafcomConfig& config) {
  return std::make_unique<Scafcom>(config);
}

TW_REGISTER(Strategy, scafcom, 0, ScafcomConfig, Create,
            "scaffold with local momentum and one vector up, for any compressor");

}  // namespace
}  // namespace tw
