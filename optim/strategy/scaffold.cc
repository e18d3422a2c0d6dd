// scaffold: local steps corrected by control variates (Karimireddy, Kale, Mohri, Reddi, Stich,
// Suresh, "SCAFFOLD", arXiv 1910.06378, option II), with one vector up where the paper sends two.
//   y_i: K steps y <- y - eta*(g_i(y) - c_i + c);  G_i = mean of the K gradients
//   send d_i = G_i - c_i;  c_i <- c_i + d_i (= G_i)
//   x <- x - eta_g*eta*K*(mean d_i + c);  c <- c + S/n*mean d_i   (client_rounds.h)
// The paper's two vectors, y_i - x and the change of c_i, are both known from d_i and c: uplink is
// one vector, and a count of the paper's own protocol is twice ours.
// It is scallion with alpha = 1 and no compressor. With a compressor it is that too: see there.
// State: c, c_i (client_rounds.h).

#include "optim/numbers.h"
#include "optim/strategy/client_rounds.h"

namespace tw {
namespace {

struct ScaffoldConfig : ClientRoundsConfig {
  static FieldList<ScaffoldConfig> Fields() {
    FieldList<ScaffoldConfig> fields;
    AddFields(&fields);
    return fields;
  }
};

class Scaffold : public ClientRounds {
 public:
  explicit Scaffold(const ScaffoldConfig& config) : ClientRounds(config, /*control=*/true) {}

 protected:
  void MakeMessage(Client& client, size_t parameter, TensorView grad) const override {
    const TensorView own = ControlOf(client, parameter);
    WithNumbers(grad.dtype, [&](auto numbers) {
      using N = decltype(numbers);
      const auto* const ci = Elements<typename N::State>(own);
      for (int64_t i = 0; i < grad.numel; ++i) N::Put(grad, i, N::Get(grad, i) - ci[i]);
    });
  }
};

StatusOr<std::unique_ptr<Strategy>> Create(const ScaffoldConfig& config) {
  return std::make_unique<Scaffold>(config);
}

TW_REGISTER(Strategy, scaffold, 0, ScaffoldConfig, Create,
            "local steps that control variates keep from drifting apart");

}  // namespace
}  // namespace tw
