// scallion: SCAFFOLD with one damped, compressed vector up (Huang, Li, Li, "Stochastic controlled
// averaging for federated learning with communication compression", arXiv 2308.08165).
//   y_i: K steps y <- y - eta*(g_i(y) - c_i + c);  G_i = mean of the K gradients
//   send d_i = C(alpha*(G_i - c_i));  c_i <- c_i + d_i
//   x <- x - eta_g*eta*K*(mean d_i + c);  c <- c + S/n*mean d_i   (client_rounds.h)
// C is the run's compressor, meant to be unbiased: its noise enters c_i, and alpha damps it. The
// theory wants alpha <= 1/(1 + omega). x moves by d_i with alpha inside: (1-alpha)*c + alpha*mean G
// when nothing is lost. alpha = 1 without compression is scaffold.
// State: c, c_i (client_rounds.h).

#include "absl/strings/str_format.h"
#include "optim/numbers.h"
#include "optim/strategy/client_rounds.h"

namespace tw {
namespace {

struct ScallionConfig : ClientRoundsConfig {
  double alpha = 0.1;
  static FieldList<ScallionConfig> Fields() {
    FieldList<ScallionConfig> fields;
    AddFields(&fields);
    return fields.Real("alpha", &ScallionConfig::alpha, {0, 1, kOpenLow},
                       "damps what is sent; at most 1/(1 + omega) of the compressor");
  }
};

class Scallion : public ClientRounds {
 public:
  explicit Scallion(const ScallionConfig& config)
      : ClientRounds(config, /*control=*/true), alpha_(config.alpha) {}

  std::vector<std::string> Warnings(const TensorSpec& spec,
                                    const Compressor& compressor) const override {
    if (compressor.traits().lossless) return {};
    if (!compressor.traits().unbiased) {
      return {"scallion wants an unbiased compressor; for others there is scafcom"};
    }
    const double limit = 1 / (1 + compressor.Omega(spec));
    if (alpha_ <= limit) return {};
    return {
        absl::StrFormat("strategy.alpha = %g is above 1/(1 + omega) = %.3g of parameter %s: "
                        "the compressor's noise may grow in c_i",
                        alpha_, limit, spec.name)};
  }

 protected:
  void MakeMessage(Client& client, size_t parameter, TensorView grad) const override {
    const TensorView own = ControlOf(client, parameter);
    WithNumbers(grad.dtype, [&](auto numbers) {
      using N = decltype(numbers);
      using T = typename N::State;
      const T alpha = static_cast<T>(alpha_);
      const T* const ci = Elements<T>(own);
      for (int64_t i = 0; i < grad.numel; ++i) N::Put(grad, i, alpha * (N::Get(grad, i) - ci[i]));
    });
  }

 private:
  double alpha_;
};

StatusOr<std::unique_ptr<Strategy>> Create(const ScallionConfig& config) {
  return std::make_unique<Scallion>(config);
}

TW_REGISTER(Strategy, scallion, 0, ScallionConfig, Create,
            "scaffold with one damped vector up, for unbiased compressors");

}  // namespace
}  // namespace tw
