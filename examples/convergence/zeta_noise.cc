// Disagreement and noise at once (Gao, Islamov, Stich, "EControl", ICLR 2024, arXiv 2311.05645: no
// zeta anywhere in its rate).
//   linear_speedup's problem with n = 16, zeta in {0, 1, 10}, the same noise, x0 = x* + a fixed
//   vector, h0 = g0, step 0.02
// Claims: EControl's error does not depend on zeta at all (it is translation invariant); EF14's
// floor grows. From x0 = 0 the transient differs, and the floors with it.

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/quadratics.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

class ZetaNoise : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Gao, Islamov, Stich: EControl, zeta sweep under noise",
            "2311.05645",
            {"EControl: floors at zeta 0, 1, 10 equal to 1e-6", "EF14: floor at zeta 10 / 0 > 10"},
            16};
  }

  Status Run(LabContext& lab) const override {
    std::vector<double> spread, growth;
    for (const uint64_t seed : lab.seeds(5)) {
      std::vector<double> econtrol, ef14;
      for (const double zeta : {0.0, 1.0, 10.0}) {
        TW_ASSIGN_OR_RETURN(const double a, Floor(lab, "econtrol", zeta, seed));
        econtrol.push_back(a);
        TW_ASSIGN_OR_RETURN(const double b, Floor(lab, "ef14", zeta, seed));
        ef14.push_back(b);
      }
      const auto [low, high] = std::minmax_element(econtrol.begin(), econtrol.end());
      spread.push_back((*high - *low) / *low);
      growth.push_back(ef14[2] / ef14[0]);
    }
    lab.Below("econtrol: relative spread of the floors at zeta 0, 1, 10", spread, 1e-6);
    lab.Above("ef14: floor at zeta = 10 over that at zeta = 0", growth, 10);
    return OkStatus();
  }

 private:
  static StatusOr<double> Floor(LabContext& lab, const std::string& feedback, double zeta,
                                uint64_t seed) {
    Quadratics problem({.num_clients = 16,
                        .zeta = zeta,
                        .sigma = 10,
                        .identity = true,
                        .start = QuadraticsStart::kNearSolution,
                        .seed = seed});
    LabRun run{.label = absl::StrFormat("%s, zeta %g", feedback, zeta),
               .seed = seed,
               .problem = &problem,
               .rounds = 3000};
    run.settings = {"optimizer.lr=0.02", "compressor.name=topk", "compressor.ratio=0.1",
                    "feedback.name=" + feedback};
    if (feedback == "econtrol") run.settings.push_back("feedback.eta=0.02");
    TW_ASSIGN_OR_RETURN(const Curve curve, lab.Run(run));
    return curve.tail(0.5, 1);
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<ZetaNoise>();
}

TW_REGISTER(Experiment, zeta_noise, 0, NoConfig, Create,
            "EControl's floor under noise does not depend on how much clients disagree");

}  // namespace
}  // namespace tw
