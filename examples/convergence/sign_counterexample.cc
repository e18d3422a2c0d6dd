// Error feedback mends sign descent (Karimireddy, Rebjock, Stich, Jaggi, "Error Feedback Fixes
// SignSGD", ICML 2019, arXiv 1901.09847, the counter-example).
//   f(x) = 1/2 |x1 + x2| + |x1 - x2|,  x0 = (1, 1/2),  step 0.1 / sqrt(t + 1),  20000 steps
// Every gradient's signs are +-(1, -1), so sign descent never leaves the line x1 + x2 = 3/2 and
// ends near f = 3/4. Claims: it does; with EF14 the scaled sign reaches the minimum.
// sign(0) = +1 everywhere: x1 = x2 is hit exactly about a hundred times, and with sign(0) = 0 sign
// descent would escape there. Here |g|_1 / 2 = 1, so that the scaled sign is the sign.

#include <algorithm>
#include <cmath>

#include "core/api/problem.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

class TwoEdges : public VectorProblem {
 public:
  TwoEdges() : VectorProblem(1, 2) {}
  std::vector<std::string> metrics() const override { return {"f"}; }

 protected:
  static double F(std::span<const double> x) {
    return 0.5 * std::abs(x[0] + x[1]) + std::abs(x[0] - x[1]);
  }
  void Start(std::span<double> x) override {
    x[0] = 1;
    x[1] = 0.5;
  }
  StatusOr<double> Gradient(const GradientCall&, std::span<const double> x,
                            std::span<double> out) override {
    const double sum = x[0] + x[1] >= 0 ? 1 : -1, difference = x[0] - x[1] >= 0 ? 1 : -1;
    out[0] = 0.5 * sum + difference;
    out[1] = 0.5 * sum - difference;
    return F(x);
  }
  Status Measure(std::span<const double> x, std::span<double> out) override {
    out[0] = F(x);
    return OkStatus();
  }
};

class SignCounterexample : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Karimireddy et al.: Error feedback fixes SignSGD, counter-example",
            "1901.09847",
            {"sign descent: f >= 0.74", "EF14 with the scaled sign: f < 1e-2", "ratio > 50"},
            1};
  }

  // Nothing here is random: one run says all.
  Status Run(LabContext& lab) const override {
    TwoEdges problem;
    const auto run = [&](const std::string& label, std::vector<std::string> settings) {
      settings.insert(settings.end(), {"optimizer.lr=0.1", "schedule.name=inverse_sqrt"});
      return lab.Run(
          {.label = label, .problem = &problem, .rounds = 20000, .settings = std::move(settings)});
    };
    TW_ASSIGN_OR_RETURN(const Curve sign,
                        run("sign", {"compressor.name=sign", "feedback.name=none"}));
    TW_ASSIGN_OR_RETURN(const Curve ef,
                        run("sign with ef14", {"compressor.name=sign", "feedback.name=ef14"}));
    TW_RETURN_IF_ERROR(run("sgd", {}).status());
    lab.Above("sign: f after 20000 steps", {sign.last()}, 0.74);
    lab.Below("sign with ef14: f after 20000 steps", {ef.last()}, 1e-2);
    lab.Above("f of sign over f of sign with ef14", {sign.last() / std::max(ef.last(), 1e-300)},
              50);
    return OkStatus();
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<SignCounterexample>();
}

TW_REGISTER(Experiment, sign_counterexample, 0, NoConfig, Create,
            "sign descent stays on a line; with error feedback it reaches the minimum");

}  // namespace
}  // namespace tw
