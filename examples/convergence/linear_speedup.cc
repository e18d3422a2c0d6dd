// Noise averages out over clients (Gao, Islamov, Stich, "EControl", ICLR 2024, arXiv 2311.05645:
// the leading term of its rate has sigma^2 / n and no delta).
//   identity Hessians, d = 200, noise of total variance 100, zeta = 1, top-k 10 %, 3000 rounds
//   SGD's stationary E|x - x*|^2 = gamma sigma^2 / (n (2 - gamma))
// Claims: EControl's floor falls by n; it is below EF21's, the more so the smaller the step.
// EF14 and EF21-SGDM beat EControl at the coarse step when clients hardly disagree: their floors
// are in the table as well.

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/quadratics.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

constexpr double kSigma = 10;

class LinearSpeedup : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Gao, Islamov, Stich: EControl, number of clients",
            "2311.05645",
            {"EControl: floor at n = 4 / n = 64 in [12, 20], falling with n on the way",
             "SGD: within 8 % of its theory",
             "EControl < 0.65 EF21 at step 0.02, < 0.35 EF21 and < 3 SGD at step 0.005",
             "EF21-SGDM (b = 0.1) < 1.1 SGD at step 0.005"},
            62};
  }

  Status Run(LabContext& lab) const override {
    const std::vector<int> sizes =
        lab.quick() ? std::vector<int>{4, 64} : std::vector<int>{4, 8, 16, 32, 64};
    std::vector<double> speedup, shares, theory, coarse, fine, fine_sgd, fine_ef21m;
    for (const uint64_t seed : lab.seeds(5)) {
      double first = 0, last = 0;
      for (const int n : sizes) {
        TW_ASSIGN_OR_RETURN(const double econtrol, Floor(lab, "econtrol", n, 0.02, 3000, seed));
        if (n == sizes.front()) first = econtrol;
        if (n == sizes.back()) last = econtrol;
        shares.push_back(econtrol * n / (first * sizes.front()));
        TW_ASSIGN_OR_RETURN(const double sgd, Floor(lab, "sgd", n, 0.02, 3000, seed));
        theory.push_back(sgd * n * (2 - 0.02) / (0.02 * kSigma * kSigma));
      }
      speedup.push_back(first / last);
      const int n = 16;
      TW_ASSIGN_OR_RETURN(const double econtrol, Floor(lab, "econtrol", n, 0.02, 3000, seed));
      TW_ASSIGN_OR_RETURN(const double ef21, Floor(lab, "ef21", n, 0.02, 3000, seed));
      TW_RETURN_IF_ERROR(Floor(lab, "ef14", n, 0.02, 3000, seed).status());
      coarse.push_back(econtrol / ef21);
      const int64_t rounds = 8000;  // four times as many for a quarter of the step, and some
      TW_ASSIGN_OR_RETURN(const double fine_econtrol,
                          Floor(lab, "econtrol", n, 0.005, rounds, seed));
      TW_ASSIGN_OR_RETURN(const double fine_ef21, Floor(lab, "ef21", n, 0.005, rounds, seed));
      TW_ASSIGN_OR_RETURN(const double plain, Floor(lab, "sgd", n, 0.005, rounds, seed));
      TW_ASSIGN_OR_RETURN(const double ef21m, Floor(lab, "ef21m", n, 0.005, rounds, seed));
      fine.push_back(fine_econtrol / fine_ef21);
      fine_sgd.push_back(fine_econtrol / plain);
      fine_ef21m.push_back(ef21m / plain);
    }
    lab.Within("econtrol: floor at 4 clients over that at 64", speedup, 12, 20);
    // What [12, 20] between 4 and 64 says of each step on the way.
    lab.Within("econtrol: n floor(n) over 4 floor(4), n = 4, 8, 16, 32, 64", shares, 0.8,
               16.0 / 12);
    lab.Within("sgd: floor over gamma sigma^2 / (n (2 - gamma))", theory, 0.92, 1.08);
    lab.Below("econtrol over ef21, n = 16, step 0.02", coarse, 0.65);
    lab.Below("econtrol over ef21, n = 16, step 0.005", fine, 0.35);
    lab.Below("econtrol over sgd, n = 16, step 0.005", fine_sgd, 3);
    lab.Below("ef21m (b = 0.1) over sgd, n = 16, step 0.005", fine_ef21m, 1.1);
    return OkStatus();
  }

 private:
  // Mean of |x - x*|^2 over the last half.
  static StatusOr<double> Floor(LabContext& lab, const std::string& method, int n, double step,
                                int64_t rounds, uint64_t seed) {
    Quadratics problem({.num_clients = n,
                        .zeta = 1,
                        .sigma = kSigma,
                        .identity = true,
                        .start = QuadraticsStart::kNearSolution,
                        .seed = seed});
    LabRun run{.label = absl::StrFormat("%s, n %d, step %g", method, n, step),
               .seed = seed,
               .problem = &problem,
               .rounds = rounds};
    run.settings = {absl::StrFormat("optimizer.lr=%g", step)};
    if (method != "sgd") {
      run.settings.insert(run.settings.end(), {"compressor.name=topk", "compressor.ratio=0.1",
                                               "feedback.name=" + method});
    }
    if (method == "econtrol") run.settings.push_back("feedback.eta=0.02");
    if (method == "ef21m") run.settings.push_back("feedback.momentum=0.1");
    run.points = 400;
    TW_ASSIGN_OR_RETURN(const Curve curve, lab.Run(run));
    return curve.tail(0.5, 1);
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<LinearSpeedup>();
}

TW_REGISTER(Experiment, linear_speedup, 0, NoConfig, Create,
            "the noise floor of EControl falls with the number of clients, and lies below EF21's");

}  // namespace
}  // namespace tw
