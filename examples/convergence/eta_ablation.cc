// How much of the error EControl may send again (Gao, Islamov, Stich, "EControl", ICLR 2024, arXiv
// 2311.05645): its eta.
//   the least squares of econtrol_lsq (zeta = 10, step 0.05, top-k 10 %), 4000 rounds
// Claims: eta = 0 is EF21 bit for bit; 0.01 and 0.02 converge to rounding; 0.05 and more diverge.
// The default, delta / 5 = 0.02, has a margin of 1.5 to 2. Small ones are slow: their tail is
// O(eta).

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/quadratics.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

class EtaAblation : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Gao, Islamov, Stich: EControl, ablation of eta",
            "2311.05645",
            {"eta = 0 equals EF21 bit for bit", "eta in {0.01, 0.02}: |x - x*| < 1e-10",
             "eta in {0.05, 0.2, 1}: diverges"},
            3};
  }

  Status Run(LabContext& lab) const override {
    std::vector<double> difference, converged, diverged;
    for (const uint64_t seed : lab.seeds()) {
      TW_ASSIGN_OR_RETURN(const Curve ef21, Method(lab, {"feedback.name=ef21"}, "ef21", seed));
      for (const double eta : {0.0, 0.001, 0.01, 0.02, 0.05, 0.2, 1.0}) {
        TW_ASSIGN_OR_RETURN(
            const Curve curve,
            Method(lab, {"feedback.name=econtrol", absl::StrFormat("feedback.eta=%g", eta)},
                   absl::StrFormat("econtrol, eta %g", eta), seed));
        if (eta == 0) difference.push_back(MaxDifference(curve, ef21));
        if (eta == 0.01 || eta == 0.02) converged.push_back(curve.last());
        if (eta >= 0.05) diverged.push_back(curve.last());
      }
    }
    lab.Always("econtrol with eta = 0: largest difference from ef21's curve", difference, 0, 0);
    lab.Below("econtrol, eta 0.01 and 0.02: |x - x*|", converged, 1e-10);
    lab.Above("econtrol, eta 0.05, 0.2 and 1: |x - x*| (infinite where nothing finite is left)",
              diverged, 1);
    return OkStatus();
  }

 private:
  static StatusOr<Curve> Method(LabContext& lab, std::vector<std::string> settings,
                                const std::string& label, uint64_t seed) {
    Quadratics problem({.zeta = 10, .seed = seed});
    settings.insert(settings.end(),
                    {"optimizer.lr=0.05", "compressor.name=topk", "compressor.ratio=0.1"});
    return lab.Run({.label = label,
                    .seed = seed,
                    .problem = &problem,
                    .rounds = 4000,
                    .settings = std::move(settings)});
  }

  static double MaxDifference(const Curve& a, const Curve& b) {
    if (a.points.size() != b.points.size()) return std::numeric_limits<double>::infinity();
    double most = 0;
    for (size_t i = 0; i < a.points.size(); ++i) {
      most = std::max(most, std::abs(a.points[i].y[0] - b.points[i].y[0]));
    }
    return most;
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<EtaAblation>();
}

TW_REGISTER(Experiment, eta_ablation, 0, NoConfig, Create,
            "EControl between EF21 (eta = 0) and divergence (eta too large)");

}  // namespace
}  // namespace tw
