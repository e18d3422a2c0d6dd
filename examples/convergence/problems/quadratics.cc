#include "examples/convergence/problems/quadratics.h"

#include <algorithm>
#include <cmath>

#include "core/base/normal.h"

namespace tw {

Quadratics::Quadratics(const QuadraticsOptions& options)
    : VectorProblem(options.num_clients, options.dimension), options_(options) {
  const size_t n = static_cast<size_t>(options.num_clients);
  const size_t d = static_cast<size_t>(options.dimension);
  TW_CHECK(options.curvatures.empty() || options.curvatures.size() == n);
  linear_.assign(n * d, 0);
  solution_.assign(d, 0);
  for (size_t c = 0; c < n; ++c) {
    double curvature = 1, scale = options.zeta;  // scale: of A_i^T b_i
    if (!options.curvatures.empty()) {
      curvature = options.curvatures[c];
      scale = curvature * options.zeta;
    } else if (!options.identity) {
      const double i = static_cast<double>(c + 1), a = i / std::sqrt(static_cast<double>(n));
      curvature = a * a;
      scale = a * options.zeta / i;
    }
    const std::span<double> linear(linear_.data() + c * d, d);
    AddNormal(RngStream::Of(options.seed, RngPurpose::kProblem, 0, 0, static_cast<uint32_t>(c)),
              scale, linear);
    curvature_.push_back(curvature);
    mean_curvature_ += curvature / static_cast<double>(n);
    for (size_t k = 0; k < d; ++k) solution_[k] += linear[k] / static_cast<double>(n);
  }
  for (double& x : solution_) x /= mean_curvature_;
}

double Quadratics::Lmax() const { return *std::max_element(curvature_.begin(), curvature_.end()); }

void Quadratics::Start(std::span<double> x) {
  std::fill(x.begin(), x.end(), 0.0);
  if (options_.start == QuadraticsStart::kZero) return;
  if (options_.start == QuadraticsStart::kNearSolution) {
    std::copy(solution_.begin(), solution_.end(), x.begin());
  }
  AddNormal(RngStream::Of(1, RngPurpose::kProblem, 1, 0, 0), 1, x);
}

StatusOr<double> Quadratics::Gradient(const GradientCall& call, std::span<const double> x,
                                      std::span<double> out) {
  const size_t c = static_cast<size_t>(call.client);
  const double* const linear = linear_.data() + c * x.size();
  // f_i up to the constant |b_i|^2 / 2.
  double loss = 0;
  for (size_t k = 0; k < x.size(); ++k) {
    const double pull = curvature_[c] * x[k];
    loss += x[k] * (0.5 * pull - linear[k]);
    out[k] = pull - linear[k];
  }
  if (options_.sigma > 0) {
    AddNormal(call.noise(), options_.sigma / std::sqrt(static_cast<double>(x.size())), out);
  }
  return loss;
}

Status Quadratics::Measure(std::span<const double> x, std::span<double> out) {
  double sum = 0;
  for (size_t k = 0; k < x.size(); ++k) sum += (x[k] - solution_[k]) * (x[k] - solution_[k]);
  out[0] = std::sqrt(sum);
  out[1] = sum;
  return OkStatus();
}

}  // namespace tw
