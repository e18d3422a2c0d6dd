// fedavg: local steps, then the mean of what clients moved (McMahan, Moore, Ramage, Hampson, Aguera
// y Arcas, arXiv 1602.05629).
//   y_i = x after K steps y <- y - eta*g_i(y);  G_i = mean of the K gradients = (x - y_i)/(eta*K)
//   x <- x - eta_g*eta*K*mean C(G_i)                              (client_rounds.h)
// C is the run's compressor: with an unbiased quantizer this is FedPAQ (Reisizadeh et al., arXiv
// 1909.13014), with feedback ef14 Fed-EF (Li, Li, arXiv 2211.14292), whose errors are kept in units
// of the gradient. One local step and eta_g = 1 are strategy sync, bit for bit.
// State: none. Left out: weights for clients of unequal size, local steps counted in epochs.

#include "optim/strategy/client_rounds.h"

namespace tw {
namespace {

struct FedAvgConfig : ClientRoundsConfig {
  static FieldList<FedAvgConfig> Fields() {
    FieldList<FedAvgConfig> fields;
    AddFields(&fields);
    return fields;
  }
};

class FedAvg : public ClientRounds {
 public:
  explicit FedAvg(const FedAvgConfig& config) : ClientRounds(config, /*control=*/false) {}
};

StatusOr<std::unique_ptr<Strategy>> Create(const FedAvgConfig& config) {
  return std::make_unique<FedAvg>(config);
}

TW_REGISTER(Strategy, fedavg, 0, FedAvgConfig, Create,
            "clients' local steps, then the mean of what they moved; compressed: FedPAQ, Fed-EF");

}  // namespace
}  // namespace tw
