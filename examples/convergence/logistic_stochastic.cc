// Error feedback on logistic regression with small batches (Gao, Islamov, Stich, "EControl", ICLR
// 2024, arXiv 2311.05645; Fatkhullin, Tyurin, Richtarik, EF21-SGDM, arXiv 2305.15155).
//   logistic_heterogeneous' convex problem with batches of 4 of a client's 100 rows, top-k 10 %,
//   step 0.05/L, EControl eta 0.02, momentum b = 0.1, 4000 rounds, x0 = 0, h0 = v0 = g0
// Claims on the mean of |grad f| over the last tenth: EF21, which takes noise for signal, is above
// 1.1 EControl, and that above SGD; EF14, EF21-SGDM and EControl with momentum (not in the paper)
// are within 1.1 SGD. The same batches for all methods.
// rows=FILE (LIBSVM, two classes) takes the place of the drawn rows; the thresholds are for
// those, and nothing is judged then.

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/client_logistic.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

class LogisticStochastic : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Gao, Islamov, Stich: EControl, stochastic logistic regression",
            "2311.05645",
            {"EF21 > 1.1 EControl > SGD", "EF14, EF21-SGDM, EControl-M < 1.1 SGD"},
            6};
  }

  Status Run(LabContext& lab) const override {
    if (!lab.rows().empty()) lab.TellOnly();
    std::vector<double> ef21_over, econtrol_over, ef14_over, ef21m_over, econtrol_m_over;
    for (const uint64_t seed : lab.seeds(5)) {
      TW_ASSIGN_OR_RETURN(const auto problem, ClientLogistic({.file = lab.rows(), .seed = seed},
                                                             {.l2 = 0.1, .batch = 4}));
      const std::string step = absl::StrFormat("optimizer.lr=%.17g", 0.05 / problem->Smoothness());
      const auto score = [&](const std::string& label,
                             const std::vector<std::string>& feedback) -> StatusOr<double> {
        LabRun run{.label = label, .seed = seed, .problem = problem.get(), .rounds = 4000};
        run.settings = feedback;
        run.settings.push_back(step);
        if (!feedback.empty()) {
          run.settings.insert(run.settings.end(), {"compressor.name=topk", "compressor.ratio=0.1"});
        }
        run.points = 400;
        TW_ASSIGN_OR_RETURN(const Curve curve, lab.Run(run));
        return curve.tail(0.1);
      };
      TW_ASSIGN_OR_RETURN(const double sgd, score("SGD", {}));
      TW_ASSIGN_OR_RETURN(const double ef21, score("EF21", {"feedback.name=ef21"}));
      TW_ASSIGN_OR_RETURN(const double econtrol,
                          score("EControl", {"feedback.name=econtrol", "feedback.eta=0.02"}));
      TW_ASSIGN_OR_RETURN(const double ef14, score("EF14", {"feedback.name=ef14"}));
      TW_ASSIGN_OR_RETURN(const double ef21m,
                          score("EF21-SGDM", {"feedback.name=ef21m", "feedback.momentum=0.1"}));
      TW_ASSIGN_OR_RETURN(const double econtrol_m,
                          score("EControl-M", {"feedback.name=econtrol_m", "feedback.eta=0.02",
                                               "feedback.momentum=0.1"}));
      ef21_over.push_back(ef21 / econtrol);
      econtrol_over.push_back(econtrol / sgd);
      ef14_over.push_back(ef14 / sgd);
      ef21m_over.push_back(ef21m / sgd);
      econtrol_m_over.push_back(econtrol_m / sgd);
    }
    lab.Above("EF21 over EControl", ef21_over, 1.1);
    lab.Above("EControl over SGD", econtrol_over, 1);
    lab.Below("EF14 over SGD", ef14_over, 1.1);
    lab.Below("EF21-SGDM over SGD", ef21m_over, 1.1);
    lab.Below("EControl-M over SGD", econtrol_m_over, 1.1);
    return OkStatus();
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<LogisticStochastic>();
}

TW_REGISTER(Experiment, logistic_stochastic, 0, NoConfig, Create,
            "EControl, EF21 and their momentum against SGD, logistic regression with batches of 4");

}  // namespace
}  // namespace tw
