#include "examples/convergence/problems/saddle.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_matrix_norm.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/normal.h"

namespace tw {
namespace {

enum class Part : uint64_t { kShared, kOwn, kOffset, kCurveX, kCurveY };

at::Tensor Normal(const SaddleOptions& options, Part part, int client, int64_t rows, int64_t cols) {
  at::Tensor out = at::zeros({rows, cols}, at::kDouble);
  AddNormal(RngStream::Of(options.seed, RngPurpose::kProblem, static_cast<uint64_t>(part), 1,
                          static_cast<uint32_t>(client)),
            1, {out.data_ptr<double>(), static_cast<size_t>(out.numel())});
  return out;
}

// lambda*I + curvature*G G'/side
at::Tensor Diagonal(const SaddleOptions& options, Part part, int client) {
  at::Tensor out = options.lambda * at::eye(options.side, at::kDouble);
  if (options.curvature > 0) {
    const at::Tensor g = Normal(options, part, client, options.side, options.side);
    out += options.curvature / static_cast<double>(options.side) * at::mm(g, g.t());
  }
  return out;
}

double SpectralNorm(const at::Tensor& matrix) {
  return at::linalg_matrix_norm(matrix, 2).item<double>();
}

}  // namespace

Saddle::Saddle(const SaddleOptions& options)
    : VectorProblem(options.num_clients, 2 * options.side) {
  const int64_t side = options.side, d = 2 * side;
  const double scale = 1 / std::sqrt(static_cast<double>(side));
  const at::Tensor shared = Normal(options, Part::kShared, 0, side, side);
  at::Tensor mean = at::zeros({d, d}, at::kDouble), offset = at::zeros({d}, at::kDouble);
  for (int m = 0; m < options.num_clients; ++m) {
    const at::Tensor a = scale * (shared + Normal(options, Part::kOwn, m, side, side));
    const at::Tensor j = at::cat({at::cat({Diagonal(options, Part::kCurveX, m), a}, 1),
                                  at::cat({-a.t(), Diagonal(options, Part::kCurveY, m)}, 1)});
    at::Tensor v = Normal(options, Part::kOffset, m, 1, d)[0];
    v.narrow(0, side, side).neg_();
    max_norm_ = std::max(max_norm_, SpectralNorm(j));
    mean += j / options.num_clients;
    offset += v / options.num_clients;
    const at::Tensor columns = j.t().contiguous();
    matrices_.insert(matrices_.end(), columns.data_ptr<double>(),
                     columns.data_ptr<double>() + d * d);
    offsets_.insert(offsets_.end(), v.data_ptr<double>(), v.data_ptr<double>() + d);
  }
  mean_norm_ = SpectralNorm(mean);
  const at::Tensor solution = at::linalg_solve(mean, -offset).contiguous();
  solution_.assign(solution.data_ptr<double>(), solution.data_ptr<double>() + d);
}

void Saddle::Start(std::span<double> x) { std::fill(x.begin(), x.end(), 0.0); }

StatusOr<double> Saddle::Gradient(const GradientCall& call, std::span<const double> x,
                                  std::span<double> out) {
  const size_t d = x.size(), client = static_cast<size_t>(call.client);
  const double* const offset = offsets_.data() + client * d;
  const double* column = matrices_.data() + client * d * d;
  std::copy(offset, offset + d, out.begin());
  for (size_t k = 0; k < d; ++k, column += d) {
    for (size_t i = 0; i < d; ++i) out[i] += column[i] * x[k];
  }
  return std::numeric_limits<double>::quiet_NaN();
}

Status Saddle::Measure(std::span<const double> x, std::span<double> out) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += (x[i] - solution_[i]) * (x[i] - solution_[i]);
    norm += solution_[i] * solution_[i];
  }
  out[0] = std::sqrt(error / norm);
  return OkStatus();
}

}  // namespace tw
