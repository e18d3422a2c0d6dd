#pragma once
// Saddle points with a known solution, as a variational inequality over z = (x, y), x and y of
// `side` numbers each:
//   f_m(x, y) = x'A_m y + a_m'x + b_m'y + lambda/2 (|x|^2 - |y|^2) + curvature/2 (x'P_m x - y'R_m
//   y) F_m(z) = (grad_x f_m, -grad_y f_m) = J_m z + v_m;  F = (1/M) sum F_m;  z0 = 0 A_m = B + N_m
//   / sqrt(side), B Gaussian / sqrt(side) and the same for all, N_m ~ N(0, I) a_m, b_m ~ N(0, I);
//   P_m, R_m = G G' / side with G ~ N(0, I), for curvature > 0 only
// curvature 0: bilinear but for lambda, the first experiment of MASHA (arXiv 2110.03313); above it:
// strongly convex and strongly concave, with client's own curvature. fp64. There is no loss.
// Metric: distance, |z - z*| / |z0 - z*|.

#include <vector>

#include "core/api/problem.h"

namespace tw {

struct SaddleOptions {
  int num_clients = 10;
  int64_t side = 50;
  double lambda = 0.1;
  double curvature = 0;
  uint64_t seed = 1;
};

class Saddle : public VectorProblem {
 public:
  explicit Saddle(const SaddleOptions& options);

  std::span<const double> solution() const { return solution_; }
  // Lipschitz constants: of F, and the largest of the F_m.
  double L() const { return mean_norm_; }
  double MaxL() const { return max_norm_; }
  std::vector<std::string> metrics() const override { return {"distance"}; }

 protected:
  void Start(std::span<double> x) override;
  StatusOr<double> Gradient(const GradientCall& call, std::span<const double> x,
                            std::span<double> out) override;
  Status Measure(std::span<const double> x, std::span<double> out) override;

 private:
  std::vector<double> matrices_;  // J_m, a column after the other, client after client
  std::vector<double> offsets_;   // v_m, client after client
  std::vector<double> solution_;
  double mean_norm_ = 0, max_norm_ = 0;
};

}  // namespace tw
