// The minimum of logistic regression, for comparison with other programs: f* and L of
//   f(x) = mean over rows of log(1 + exp(-y <a, x>)) + l2/2 |x|^2,   l2 = 1e-3, y = +-1, no bias,
//   features as they are
// by Newton's method (problems/logistic.h). L = |A|^2 / (4 rows) + l2, the largest curvature that f
// can have. rows=FILE (LIBSVM, two classes) is what this is for; docs/references.md has the public
// data sets. Without it, rows drawn as in logistic_heterogeneous.
// Claim: |grad f| at the minimum is at most 1e-11: f is 1e-3 strongly convex, so f* is off by at
// most |grad f|^2 / (2 l2) = 5e-20, less than rounding.

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/client_logistic.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

class LogisticReference : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"reference values of l2-regularised logistic regression, l2 = 1e-3",
            "",
            {"|grad f| <= 1e-11 at the minimum that Newton's method finds"},
            1};
  }

  Status Run(LabContext& lab) const override {
    // One client: f is the mean over rows, whatever their labels.
    TW_ASSIGN_OR_RETURN(const auto problem,
                        ClientLogistic({.file = lab.rows(), .clients = 1}, {.l2 = 1e-3}));
    std::vector<double> x;
    TW_ASSIGN_OR_RETURN(const double minimum, problem->Minimize(&x));
    std::vector<double> measured(problem->metrics().size());
    const TensorView at{x.data(), DType::kF64, static_cast<int64_t>(x.size())};
    Problem& measurable = *problem;
    TW_RETURN_IF_ERROR(measurable.Measure({&at, 1}, measured));
    const double L = problem->Smoothness();
    lab.Below("|grad f| at the minimum", {measured[0]}, 1e-11);
    lab.Report(absl::StrFormat("f* = %.12f, %d rows, %d features", minimum, problem->num_rows(),
                               problem->features()),
               {minimum});
    lab.Report(absl::StrFormat("L = %.6f", L), {L});
    return OkStatus();
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<LogisticReference>();
}

TW_REGISTER(Experiment, logistic_reference, 0, NoConfig, Create,
            "f* and L of logistic regression on rows of yours, by Newton's method");

}  // namespace
}  // namespace tw
