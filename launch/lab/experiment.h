#pragma once
// Experiment: one reproduction. One file in examples/convergence/ that ends in one registration
// line; `tightwire lab` lists and runs what is registered.
//
//   class EControlLsq : public Experiment {
//     ExperimentInfo info() const override { return {"EControl ...", "2311.05645", {...}, 2}; }
//     Status Run(LabContext& lab) const override {
//       std::vector<double> last;
//       for (const uint64_t seed : lab.seeds()) {
//         Quadratics problem({.zeta = 10, .seed = seed});
//         TW_ASSIGN_OR_RETURN(const Curve curve, lab.Run({.label = "econtrol", .seed = seed,
//             .problem = &problem, .rounds = 4000,
//             .settings = {"optimizer.lr=0.05", "compressor.name=topk", "compressor.ratio=0.1",
//                          "feedback.name=econtrol", "feedback.eta=0.02"}}));
//         last.push_back(curve.last());
//       }
//       lab.Below("econtrol: |x - x*|", last, 1e-10);
//       return OkStatus();
//     }
//   };

#include <string>
#include <vector>

#include "core/base/registry.h"
#include "launch/lab/lab_context.h"

namespace tw {

struct ExperimentInfo {
  std::string paper;                // authors, title or figure
  std::string arxiv;                // "2311.05645"
  std::vector<std::string> claims;  // what is claimed, with thresholds, in words
  double seconds = 1;               // expected, at full length, on one core
  bool alone = false;               // it measures times: nothing may run beside it
};

class Experiment {
 public:
  virtual ~Experiment() = default;
  virtual ExperimentInfo info() const = 0;
  // Collective. Claims and curves go to `lab`; an error means that it could not run at all.
  virtual Status Run(LabContext& lab) const = 0;
};

}  // namespace tw
