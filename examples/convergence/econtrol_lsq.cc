// EControl and its neighbours on least squares without noise, where clients disagree a lot (Gao,
// Islamov, Stich, "EControl", ICLR 2024, arXiv 2311.05645, the synthetic experiment).
//   n = 10, d = 200, zeta = 10, top-k 10 %, step 0.05, 4000 rounds, x0 = 0, h0 = g0
// Claims: with full gradients EControl and the EF21 family reach the solution to rounding; EF14
// stops at a floor that grows with zeta, and compression without memory does not converge.

#include "examples/convergence/problems/quadratics.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

class EControlLsq : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Gao, Islamov, Stich: EControl, synthetic least squares, sigma = 0",
            "2311.05645",
            {"SGD, EF21, EF21-SGDM, EControl: |x - x*| < 1e-10", "EF14: > 0.5",
             "top-k without feedback: > 1"},
            1};
  }

  Status Run(LabContext& lab) const override {
    struct Method {
      const char* label;
      std::vector<std::string> settings;
      bool converges;
      double limit;
    };
    const std::vector<Method> methods = {
        {"sgd", {}, true, 1e-10},
        {"ef21", {"feedback.name=ef21"}, true, 1e-10},
        {"ef21-sgdm", {"feedback.name=ef21m"}, true, 1e-10},
        {"econtrol", {"feedback.name=econtrol", "feedback.eta=0.02"}, true, 1e-10},
        {"ef14", {"feedback.name=ef14"}, false, 0.5},
        {"naive", {"feedback.name=none"}, false, 1}};
    for (const Method& method : methods) {
      std::vector<double> distances;
      for (const uint64_t seed : lab.seeds()) {
        Quadratics problem({.zeta = 10, .seed = seed});
        LabRun run{.label = method.label, .seed = seed, .problem = &problem, .rounds = 4000};
        run.settings = {"optimizer.lr=0.05"};
        if (!method.settings.empty()) {
          run.settings.insert(run.settings.end(), {"compressor.name=topk", "compressor.ratio=0.1"});
        }
        run.settings.insert(run.settings.end(), method.settings.begin(), method.settings.end());
        TW_ASSIGN_OR_RETURN(const Curve curve, lab.Run(run));
        distances.push_back(curve.last());
      }
      const std::string claim = std::string(method.label) + ": |x - x*| after 4000 rounds";
      method.converges ? lab.Below(claim, distances, method.limit)
                       : lab.Above(claim, distances, method.limit);
    }
    return OkStatus();
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<EControlLsq>();
}

TW_REGISTER(Experiment, econtrol_lsq, 0, NoConfig, Create,
            "EControl against EF21, EF14 and SGD on least squares without noise");

}  // namespace
}  // namespace tw
