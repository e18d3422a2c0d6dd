#pragma once
// Two-class logistic regression against an adversary who shifts every row against its label by one
// common r, as a variational inequality over z = (w, r):
//   f_m(w, r) = mean over the client's rows of log(1 + exp(-(y <a, w> - <r, w>)))
//               + l2/2 |w|^2 - price/2 |r|^2;      min over w, max over r;  f = (1/n) sum f_m
//   F_m(z) = (grad_w f_m, -grad_r f_m);  z0 = (0, 0)
// For a linear model the worst shift of a row against its label has the same direction for all, so
// a common r loses nothing. f is convex in w, and concave in r while price > |w|^2 mean s(1-s), s
// being the slopes of the losses: F is monotone there, and not everywhere. Rows stay sparse. fp64.
// Metrics, over all rows: operator (|F(z)|), loss (f), concavity (price - |w|^2 mean s(1-s)).

#include <memory>
#include <vector>

#include "core/api/problem.h"
#include "examples/convergence/problems/client_rows.h"

namespace tw {

struct RobustLogisticOptions {
  double l2 = 0.05;
  double price = 1;
  int64_t batch = 0;  // rows a gradient, drawn with replacement; 0: all of the client's
};

class RobustLogistic : public VectorProblem {
 public:
  // Clients and errors: those of ClientRows::Create.
  static StatusOr<std::unique_ptr<RobustLogistic>> Create(
      const SparseRows& rows, const std::vector<std::vector<int64_t>>& clients,
      const RobustLogisticOptions& options);

  std::vector<std::string> metrics() const override { return {"operator", "loss", "concavity"}; }

 protected:
  void Start(std::span<double> x) override;
  StatusOr<double> Gradient(const GradientCall& call, std::span<const double> x,
                            std::span<double> out) override;
  Status Measure(std::span<const double> x, std::span<double> out) override;

 private:
  // Sums over rows.
  struct Sums {
    double loss = 0, slope = 0, curvature = 0;
  };

  RobustLogistic(ClientRows rows, const RobustLogisticOptions& options);
  // Adds one row with its weight; its part of grad_w that is along the row goes to `out`.
  void AddRow(size_t row, double weight, std::span<const double> w, double shift,
              std::span<double> out, Sums* sums) const;
  // Turns what AddRow left in `out` into F; returns f.
  double Finish(const Sums& sums, std::span<const double> x, std::span<double> out) const;

  RobustLogisticOptions options_;
  ClientRows rows_;
  size_t features_;
  std::vector<double> all_;  // of Measure
};

}  // namespace tw
