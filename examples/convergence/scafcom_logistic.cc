// SCALLION and SCAFCOM on logistic regression whose clients see few labels (Huang, Li, Li,
// "Stochastic controlled averaging ...", ICLR 2024, arXiv 2308.08165), where exact solutions are
// near enough to show what client drift and compression leave over.
//   40 clients of 100 rows sorted by label, x ~ N(0, I_60), labels turned by noise of 0.5 standard
//   deviations of <x, w>, l2 = 0.01
//   8 clients a round, 10 local steps of 0.05, batch 8 (or all rows), eta_g = 1, 600 rounds, x0 = 0
// The steps are the same for all methods and not tuned. Score: mean |grad f| over the last tenth of
// the rounds.
// SCAFCOM against Fed-EF holds on the mean of 5 seeds and not on each: .488 on average, .512 at
// worst. Other label noise does not change that (5 seeds each, mean and worst: 0: .504, .550; 0.1:
// .502, .530; 0.25: .521, .584; 1: .493, .560, and with 0.25 and 1 SCAFCOM / SCAFFOLD is 1.23 and
// 1.22 at worst): the noise stays at 0.5, as in logistic_heterogeneous. The mean is what is judged,
// as everywhere; the worst seed is in the row.
// rows=FILE (LIBSVM, two classes) takes the place of the drawn rows; the thresholds are for
// those, and nothing is judged then.

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/client_logistic.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

using Settings = std::vector<std::string>;

const Settings kTopK = {"compressor.name=topk", "compressor.ratio=0.05"};
const Settings kDithering = {"compressor.name=qsgd", "compressor.levels=4"};

Settings operator+(Settings a, const Settings& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class ScafcomLogistic : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Huang, Li, Li: SCALLION and SCAFCOM, logistic regression with label-sorted clients",
            "2308.08165",
            {"batch 8: SCAFCOM (top-k 5 %) < 0.5 Fed-EF and < 1.2 SCAFFOLD",
             "batch 8: SCALLION (4 levels) with alpha 0.1 < 0.7 of alpha 1, and < FedPAQ",
             "full batch: SCAFCOM < 0.3 FedAvg"},
            20};
  }

  Status Run(LabContext& lab) const override {
    if (!lab.rows().empty()) lab.TellOnly();
    TW_RETURN_IF_ERROR(Stochastic(lab));
    return FullBatch(lab);
  }

 private:
  static StatusOr<double> Score(LabContext& lab, const std::string& label, const std::string& name,
                                const Settings& more, int64_t batch, uint64_t seed) {
    TW_ASSIGN_OR_RETURN(
        const auto problem,
        ClientLogistic(
            {.file = lab.rows(), .seed = seed, .rows = 4000, .features = 60, .clients = 40},
            {.l2 = 1e-2, .batch = batch}));
    LabRun run{.label = label, .seed = seed, .problem = problem.get(), .rounds = 600};
    run.settings = Settings{"optimizer.lr=0.05", "strategy.name=" + name, "strategy.local_steps=10",
                            "strategy.participation=0.2"} +
                   more;
    TW_ASSIGN_OR_RETURN(const Curve curve, lab.Run(run));
    return curve.tail(0.1);
  }

  static Status Stochastic(LabContext& lab) {
    std::vector<double> to_fed_ef, to_scaffold, to_undamped, to_fedpaq;
    for (const uint64_t seed : lab.seeds(5)) {
      const auto score = [&](const std::string& label, const std::string& name,
                             const Settings& more) {
        return Score(lab, label + ", batch 8", name, more, 8, seed);
      };
      TW_RETURN_IF_ERROR(score("FedAvg", "fedavg", {}).status());
      TW_RETURN_IF_ERROR(score("FedAvg top-k", "fedavg", kTopK).status());
      TW_ASSIGN_OR_RETURN(const double fed_ef,
                          score("Fed-EF", "fedavg", kTopK + Settings{"feedback.name=ef14"}));
      TW_ASSIGN_OR_RETURN(const double fedpaq, score("FedPAQ", "fedavg", kDithering));
      TW_ASSIGN_OR_RETURN(const double scaffold, score("SCAFFOLD", "scaffold", {}));
      TW_ASSIGN_OR_RETURN(const double scafcom,
                          score("SCAFCOM", "scafcom", kTopK + Settings{"strategy.beta=0.2"}));
      std::vector<double> scallion;
      for (const char* alpha : {"0.05", "0.1", "0.3", "1"}) {
        TW_ASSIGN_OR_RETURN(const double one,
                            score(std::string("SCALLION ") + alpha, "scallion",
                                  kDithering + Settings{std::string("strategy.alpha=") + alpha}));
        scallion.push_back(one);
      }
      to_fed_ef.push_back(scafcom / fed_ef);
      to_scaffold.push_back(scafcom / scaffold);
      to_undamped.push_back(scallion[1] / scallion[3]);
      to_fedpaq.push_back(scallion[1] / fedpaq);
    }
    lab.Below("batch 8: SCAFCOM / Fed-EF", to_fed_ef, 0.5);
    lab.Below("batch 8: SCAFCOM / SCAFFOLD", to_scaffold, 1.2);
    lab.Below("batch 8: SCALLION, alpha 0.1 / alpha 1", to_undamped, 0.7);
    lab.Below("batch 8: SCALLION, alpha 0.1 / FedPAQ", to_fedpaq, 1);
    return OkStatus();
  }

  static Status FullBatch(LabContext& lab) {
    std::vector<double> to_fedavg;
    for (const uint64_t seed : lab.seeds(5)) {
      const auto score = [&](const std::string& label, const std::string& name,
                             const Settings& more) {
        return Score(lab, label + ", full batch", name, more, 0, seed);
      };
      TW_ASSIGN_OR_RETURN(const double fedavg, score("FedAvg", "fedavg", {}));
      TW_RETURN_IF_ERROR(
          score("Fed-EF", "fedavg", kTopK + Settings{"feedback.name=ef14"}).status());
      TW_RETURN_IF_ERROR(score("SCAFFOLD", "scaffold", {}).status());
      TW_RETURN_IF_ERROR(
          score("SCALLION 0.1", "scallion", kDithering + Settings{"strategy.alpha=0.1"}).status());
      TW_ASSIGN_OR_RETURN(const double scafcom,
                          score("SCAFCOM", "scafcom", kTopK + Settings{"strategy.beta=0.2"}));
      to_fedavg.push_back(scafcom / fedavg);
    }
    lab.Below("full batch: SCAFCOM / FedAvg", to_fedavg, 0.3);
    return OkStatus();
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<ScafcomLogistic>();
}

TW_REGISTER(
    Experiment, scafcom_logistic, 0, NoConfig, Create,
    "SCALLION and SCAFCOM against FedAvg, Fed-EF, FedPAQ and SCAFFOLD, logistic regression");

}  // namespace
}  // namespace tw
