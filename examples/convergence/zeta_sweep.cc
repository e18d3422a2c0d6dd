// How the floor of error feedback depends on how much clients disagree (Gao, Islamov, Stich,
// "EControl", ICLR 2024, arXiv 2311.05645, the zeta sweep of the synthetic experiment).
//   n = 10, d = 200, top-k 10 %, zeta in {0, 1, 10, 100}, 4000 rounds from one fixed x0, h0 = g0
// Claims: EF14's floor is linear in zeta and grows with the step; EF21's and EControl's error is at
// rounding whatever zeta is.
// From x0 = 0 everything would scale with zeta, and nothing would be shown.

#include <algorithm>

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/quadratics.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

class ZetaSweep : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Gao, Islamov, Stich: EControl, zeta sweep, sigma = 0",
            "2311.05645",
            {"EF14: floor at zeta 10 / 1 and 100 / 10 in [8, 12]",
             "EF14: floor at step 0.05 / 0.02 in [2.1, 2.9]",
             "EF21, EControl: |x - x*| < 1e-10 max(1, zeta)"},
            3};
  }

  Status Run(LabContext& lab) const override {
    std::vector<double> ratio_low, ratio_high, ratio_step, ef21, econtrol;
    for (const uint64_t seed : lab.seeds()) {
      std::vector<double> floors;
      for (const double zeta : {0.0, 1.0, 10.0, 100.0}) {
        const double unit = std::max(1.0, zeta);
        TW_ASSIGN_OR_RETURN(const double ef14, Floor(lab, "ef14", zeta, 0.05, seed));
        floors.push_back(ef14);
        TW_ASSIGN_OR_RETURN(const double a, Floor(lab, "ef21", zeta, 0.05, seed));
        ef21.push_back(a / unit);
        TW_ASSIGN_OR_RETURN(const double b, Floor(lab, "econtrol", zeta, 0.05, seed));
        econtrol.push_back(b / unit);
      }
      TW_ASSIGN_OR_RETURN(const double small_step, Floor(lab, "ef14", 10, 0.02, seed));
      ratio_low.push_back(floors[2] / floors[1]);
      ratio_high.push_back(floors[3] / floors[2]);
      ratio_step.push_back(floors[2] / small_step);
    }
    lab.Within("ef14: floor at zeta = 10 over that at zeta = 1", ratio_low, 8, 12);
    lab.Within("ef14: floor at zeta = 100 over that at zeta = 10", ratio_high, 8, 12);
    lab.Within("ef14: floor at step 0.05 over that at step 0.02", ratio_step, 2.1, 2.9);
    lab.Below("ef21: |x - x*| / max(1, zeta), zeta = 0, 1, 10, 100", ef21, 1e-10);
    lab.Below("econtrol: |x - x*| / max(1, zeta), zeta = 0, 1, 10, 100", econtrol, 1e-10);
    return OkStatus();
  }

 private:
  static StatusOr<double> Floor(LabContext& lab, const std::string& feedback, double zeta,
                                double step, uint64_t seed) {
    Quadratics problem({.zeta = zeta, .start = QuadraticsStart::kFixedPoint, .seed = seed});
    LabRun run{.label = absl::StrFormat("%s, zeta %g, step %g", feedback, zeta, step),
               .seed = seed,
               .problem = &problem,
               .rounds = 4000};
    run.settings = {absl::StrFormat("optimizer.lr=%g", step), "compressor.name=topk",
                    "compressor.ratio=0.1", "feedback.name=" + feedback};
    if (feedback == "econtrol") run.settings.push_back("feedback.eta=0.02");
    TW_ASSIGN_OR_RETURN(const Curve curve, lab.Run(run));
    return curve.last();
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<ZetaSweep>();
}

TW_REGISTER(Experiment, zeta_sweep, 0, NoConfig, Create,
            "EF14's floor grows with how much clients disagree; EF21's and EControl's does not");

}  // namespace
}  // namespace tw
