// masha1: extragradient with compressed differences, for unbiased compressors (Beznosikov,
// Richtarik, Diskin, Ryabinin, Gasnikov, NeurIPS 2022, arXiv 2110.03313, algorithm 1).
//   half = tau*z + (1-tau)*w - gamma*F(w);  send Q(F_m(half) - F_m(w));  G = Q_server(mean)
//   z <- half - gamma*G;  with chance 1 - tau: w = z, F_m(w) sent dense       (masha_steps.h)
// Noise in place of memory: it shrinks with the number of clients when their Q are independent
// (randk: indices = "own"). Theory: gamma <= sqrt(1-tau)/(2C), C^2 = (q_s/n)(q + n - 1)L^2 with
// q = 1 + omega of the clients' compressor and q_s of the server's.
// State: w, F, F_m (masha_steps.h).

#include "optim/strategy/masha_steps.h"

namespace tw {
namespace {

class Masha1 : public MashaSteps {
 public:
  explicit Masha1(const MashaConfig& config) : MashaSteps(config) {}
  std::vector<std::string> Warnings(const TensorSpec&,
                                    const Compressor& compressor) const override {
    if (compressor.traits().lossless || compressor.traits().unbiased) return {};
    return {"masha1 wants an unbiased compressor; for others there is masha2 with feedback ef14"};
  }
};

StatusOr<std::unique_ptr<Strategy>> Create(const MashaConfig& config) {
  return std::make_unique<Masha1>(config);
}

TW_REGISTER(Strategy, masha1, 0, MashaConfig, Create,
            "extragradient with compressed differences, for unbiased compressors");

}  // namespace
}  // namespace tw
