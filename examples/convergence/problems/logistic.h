#pragma once
// Two-class logistic regression with clients, convex or with the non-convex regulariser
//   f_i(x) = mean over the client's rows of log(1 + exp(-y <a, x>)) + l2/2 |x|^2
//            + nonconvex * sum_j x_j^2 / (1 + x_j^2);   f = (1/n) sum_i f_i;   x0 = 0
// Rows stay sparse: a gradient touches d numbers once and the batch's non-zeros. fp64.
// Metrics: grad_norm (of f, over all rows), loss (f).

#include <memory>
#include <vector>

#include "core/api/problem.h"
#include "core/data/labeled_data.h"
#include "core/data/split.h"
#include "examples/convergence/problems/client_rows.h"

namespace tw {

struct LogisticOptions {
  double l2 = 0;
  double nonconvex = 0;
  int64_t batch = 0;  // rows a gradient, all different; 0, or more than there are: all
};

class LogisticProblem : public VectorProblem {
 public:
  // Clients and errors: those of ClientRows::Create.
  static StatusOr<std::unique_ptr<LogisticProblem>> Create(
      const SparseRows& rows, const std::vector<std::vector<int64_t>>& clients,
      const LogisticOptions& options);
  // The same with the clients that Shards makes.
  static StatusOr<std::unique_ptr<LogisticProblem>> Create(const SparseRows& rows,
                                                           const ShardOptions& shards,
                                                           const LogisticOptions& options);

  std::vector<std::string> metrics() const override { return {"grad_norm", "loss"}; }

  // The largest curvature that f (client < 0) or f_i can have: |A|^2 / 4 over rows, by power
  // iteration to six digits, + l2 + 2 * nonconvex.
  double Smoothness(int client = -1) const;
  // The convex problem's minimum by Newton's method, |grad f| <= 1e-12; writes x and returns f.
  // ConfigError when l2 = 0 or nonconvex > 0; NumbersError when 100 steps do not get there.
  StatusOr<double> Minimize(std::vector<double>* x) const;
  int64_t features() const { return rows_.features; }
  int64_t num_rows() const { return static_cast<int64_t>(rows_.signs.size()); }
  const LogisticOptions& options() const { return options_; }

 protected:
  void Start(std::span<double> x) override;
  StatusOr<double> Gradient(const GradientCall& call, std::span<const double> x,
                            std::span<double> out) override;
  Status Measure(std::span<const double> x, std::span<double> out) override;

 private:
  LogisticProblem(ClientRows rows, const LogisticOptions& options);

  double Dot(size_t row, std::span<const double> x) const;
  void AddRow(size_t row, double factor, std::span<double> out) const;
  // out += weight * gradient of the row's loss; returns the row's loss.
  double AddLoss(size_t row, double weight, std::span<const double> x, std::span<double> out) const;
  // out = gradient of the regulariser; returns its value.
  double Regularise(std::span<const double> x, std::span<double> out) const;
  // f and its gradient; curvature (may be null) gets, for each row, its factor in the Hessian.
  double Full(std::span<const double> x, std::span<double> out,
              std::vector<double>* curvature) const;
  void DrawBatch(const RngStream& rng, size_t rows);

  LogisticOptions options_;
  ClientRows rows_;
  std::vector<double> all_;    // of Measure
  std::vector<size_t> drawn_;  // of a batch
};

}  // namespace tw
