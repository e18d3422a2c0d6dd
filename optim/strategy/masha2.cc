// masha2: extragradient with compressed differences and memories of errors, for contractive
// compressors (Beznosikov, Richtarik, Diskin, Ryabinin, Gasnikov, NeurIPS 2022, arXiv 2110.03313,
// algorithm 2).
//   half = tau*z + (1-tau)*w - gamma*F(w)
//   r = F_m(half) - F_m(w) + e_m;  send C(r);  e_m = r - C(r)
//   a = mean + e;  G = C_server(a);  e = a - G
//   z <- half - gamma*G;  with chance 1 - tau: w = z, F_m(w) sent dense       (masha_steps.h)
// The memories are those of feedback ef14: feedback.name = "ef14" for e_m, and in the lab's
// settings of the server for e. Without them compression of differences has no memory, which no
// theory covers. Constrained problems are not for masha2. State: w, F, F_m (masha_steps.h); e_m
// (ef14).

#include "optim/strategy/masha_steps.h"

namespace tw {
namespace {

class Masha2 : public MashaSteps {
 public:
  explicit Masha2(const MashaConfig& config) : MashaSteps(config) {}
  std::vector<std::string> Warnings(const TensorSpec& spec,
                                    const Compressor& compressor) const override {
    if (compressor.traits().lossless || compressor.Delta(spec) > 0) return {};
    return {
        "masha2 wants a compressor that leaves less than it was given; for unbiased ones "
        "there is masha1"};
  }
};

StatusOr<std::unique_ptr<Strategy>> Create(const MashaConfig& config) {
  return std::make_unique<Masha2>(config);
}

TW_REGISTER(Strategy, masha2, 0, MashaConfig, Create,
            "extragradient with compressed differences, for any compressor with feedback ef14");

}  // namespace
}  // namespace tw
