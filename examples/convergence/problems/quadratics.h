#pragma once
// Least squares whose clients disagree, with Hessians that are multiples of the identity.
//   f_i(x) = 1/2 |A_i x - b_i|^2,  A_i = (i / sqrt n) I,  b_i ~ N(0, (zeta / i)^2 I),  i = 1..n
//   x* = sum A_i b_i / sum i^2/n;  gradients may carry noise N(0, sigma^2 / d I)
// or, with `identity`, A_i = I and b_i ~ N(0, zeta^2 I); or, with `curvatures` a_i,
//   f_i(x) = a_i/2 |x - b_i|^2,  b_i ~ N(0, zeta^2 I);  x* = sum a_i b_i / sum a_i
// zeta sets how much the clients' gradients differ at x*. From the synthetic experiment of
// Gao, Islamov, Stich, arXiv 2311.05645.

#include "core/api/problem.h"

namespace tw {

// Where a run starts: at 0, at a point drawn from N(0, I) that is the same for every zeta and seed,
// or at the solution plus such a point.
enum class QuadraticsStart { kZero, kFixedPoint, kNearSolution };

struct QuadraticsOptions {
  int num_clients = 10;
  int64_t dimension = 200;
  double zeta = 10;
  double sigma = 0;  // of the whole noise vector
  bool identity = false;
  std::vector<double> curvatures;  // one a client, or empty
  QuadraticsStart start = QuadraticsStart::kZero;
  uint64_t seed = 1;  // of the b_i
};

class Quadratics : public VectorProblem {
 public:
  explicit Quadratics(const QuadraticsOptions& options);

  std::span<const double> solution() const { return solution_; }
  // Of the mean function, whose Hessian is L times the identity. The largest of a client's:
  // Lmax().
  double L() const { return mean_curvature_; }
  double Lmax() const;
  // |x - x*| and its square.
  std::vector<std::string> metrics() const override { return {"distance", "distance_squared"}; }

 protected:
  void Start(std::span<double> x) override;
  StatusOr<double> Gradient(const GradientCall& call, std::span<const double> x,
                            std::span<double> out) override;
  Status Measure(std::span<const double> x, std::span<double> out) override;

 private:
  QuadraticsOptions options_;
  std::vector<double> linear_;  // A_i b_i, client after client
  std::vector<double> curvature_, solution_;
  double mean_curvature_ = 0;
};

}  // namespace tw
