// Distributed adversarial training of a small transformer (Beznosikov, Richtarik, Diskin, Ryabinin,
// Gasnikov, NeurIPS 2022, arXiv 2110.03313, the second experiment, at our size).
//   a GPT of 2 layers and width 32 (problems/adversarial_gpt.h), 4 workers with text of their own,
//   4 windows of 32 bytes a gradient, a one-step perturbation of norm 1 of the embeddings, 300
//   steps
// All start from the same model, trained without an adversary. The step is 0.04, on seed 101 better
// than 0.02 for every method; larger ones were not tried. That start and the size of the
// perturbation were chosen after runs from random weights, in which no step of plain gradients got
// below the entropy of single letters.
// Claim: compressed methods end within 3 % of extragradient's robust loss on held-out text. What
// that hides is told beside it: the part of extragradient's gain over the start that they reach.
// The operator is not monotone: no rate is claimed.

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/adversarial_gpt.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

struct Method {
  std::string label;
  double step;
  std::vector<std::string> settings;
};

std::vector<Method> Methods() {
  return {{"extragradient", 0.04, {"strategy.name=extragradient"}},
          {"extragradient qsgd",
           0.04,
           {"strategy.name=extragradient", "compressor.name=qsgd", "compressor.levels=7",
            "compressor.bucket=128"}},
          {"MASHA1 qsgd",
           0.04,
           {"strategy.name=masha1", "compressor.name=qsgd", "compressor.levels=7",
            "compressor.bucket=128"}},
          {"MASHA2 top-k 10 %",
           0.04,
           {"strategy.name=masha2", "compressor.name=topk", "compressor.ratio=0.1",
            "feedback.name=ef14"}}};
}

class AdversarialTransformer : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Beznosikov, Richtarik, Diskin, Ryabinin, Gasnikov: MASHA, adversarial training",
            "2110.03313",
            {"compressed extragradient, MASHA1, MASHA2: robust loss within 3 % of extragradient's"},
            120};
  }

  Status Run(LabContext& lab) const override {
    std::vector<std::vector<double>> losses, clean, gain, up, down;
    const std::vector<Method> methods = Methods();
    losses.resize(methods.size());
    clean = gain = up = down = losses;
    for (const uint64_t seed : lab.seeds(3)) {
      TW_ASSIGN_OR_RETURN(const auto problem, AdversarialGpt::Create({.seed = seed}));
      for (size_t k = 0; k < methods.size(); ++k) {
        LabRun run{.label = methods[k].label,
                   .seed = seed,
                   .problem = problem.get(),
                   .rounds = lab.quick() ? 60 : 300};
        run.settings = methods[k].settings;
        run.settings.push_back(absl::StrFormat("optimizer.lr=%g", methods[k].step));
        run.points = 10;
        TW_ASSIGN_OR_RETURN(const Curve curve, lab.Run(run));
        const double dense = 4.0 * static_cast<double>(problem->numel() * problem->num_clients());
        const CurvePoint& end = curve.points.back();
        losses[k].push_back(curve.last());
        clean[k].push_back(curve.last(1));
        gain[k].push_back(curve.points[0].y[0] - curve.last());
        up[k].push_back(static_cast<double>(end.uplink_bytes) / dense);
        down[k].push_back(static_cast<double>(end.total_bytes - end.uplink_bytes) / dense);
      }
    }
    for (size_t k = 1; k < methods.size(); ++k) {
      std::vector<double> ratios, parts;
      for (size_t s = 0; s < losses[k].size(); ++s) {
        ratios.push_back(losses[k][s] / losses[0][s]);
        parts.push_back(gain[k][s] / gain[0][s]);
      }
      lab.Below(methods[k].label + ": robust loss / extragradient's", ratios, 1.03);
      lab.Report(methods[k].label + ": gain over the start / extragradient's", parts);
    }
    for (size_t k = 0; k < methods.size(); ++k) {
      lab.Report(methods[k].label + ": robust loss", losses[k]);
      lab.Report(methods[k].label + ": gain over the start", gain[k]);
      lab.Report(methods[k].label + ": loss without an adversary", clean[k]);
      lab.Report(methods[k].label + ": dense vectors up", up[k]);
      lab.Report(methods[k].label + ": dense vectors down", down[k]);
    }
    return OkStatus();
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<AdversarialTransformer>();
}

TW_REGISTER(Experiment, adversarial_transformer, 0, NoConfig, Create,
            "MASHA and compressed extragradient in adversarial training of a small transformer");

}  // namespace
}  // namespace tw
