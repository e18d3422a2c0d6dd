#include "examples/convergence/problems/robust_logistic.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tw {

RobustLogistic::RobustLogistic(ClientRows rows, const RobustLogisticOptions& options)
    : VectorProblem(rows.num_clients(), 2 * rows.features),
      options_(options),
      rows_(std::move(rows)),
      features_(static_cast<size_t>(rows_.features)) {}

StatusOr<std::unique_ptr<RobustLogistic>> RobustLogistic::Create(
    const SparseRows& rows, const std::vector<std::vector<int64_t>>& clients,
    const RobustLogisticOptions& options) {
  TW_ASSIGN_OR_RETURN(ClientRows own, ClientRows::Create(rows, clients));
  return std::unique_ptr<RobustLogistic>(new RobustLogistic(std::move(own), options));
}

void RobustLogistic::Start(std::span<double> x) { std::fill(x.begin(), x.end(), 0.0); }

void RobustLogistic::AddRow(size_t row, double weight, std::span<const double> w, double shift,
                            std::span<double> out, Sums* sums) const {
  const size_t begin = rows_.row_begin[row], end = rows_.row_begin[row + 1];
  const auto column = [&](size_t k) { return static_cast<size_t>(rows_.columns[k]); };
  const double y = static_cast<double>(rows_.signs[row]);
  double score = 0;
  for (size_t k = begin; k < end; ++k) score += rows_.values[k] * w[column(k)];
  const LogLoss loss(y * score - shift);
  for (size_t k = begin; k < end; ++k) out[column(k)] -= weight * y * loss.slope * rows_.values[k];
  sums->loss += weight * loss.value;
  sums->slope += weight * loss.slope;
  sums->curvature += weight * loss.slope * (1 - loss.slope);
}

double RobustLogistic::Finish(const Sums& sums, std::span<const double> x,
                              std::span<double> out) const {
  double value = sums.loss;
  for (size_t j = 0; j < features_; ++j) {
    const double w = x[j], r = x[features_ + j];
    value += options_.l2 / 2 * w * w - options_.price / 2 * r * r;
    out[j] += sums.slope * r + options_.l2 * w;
    out[features_ + j] = options_.price * r - sums.slope * w;
  }
  return value;
}

StatusOr<double> RobustLogistic::Gradient(const GradientCall& call, std::span<const double> x,
                                          std::span<double> out) {
  const auto [begin, end] = rows_.of(call.client);
  const size_t rows = end - begin;
  const std::span<const double> w = x.first(features_), r = x.subspan(features_);
  const double shift = std::inner_product(w.begin(), w.end(), r.begin(), 0.0);
  std::fill(out.begin(), out.end(), 0.0);
  Sums sums;
  const size_t count = options_.batch == 0 ? rows : static_cast<size_t>(options_.batch);
  const RngStream rng = call.noise();
  for (size_t i = 0; i < count; ++i) {
    const size_t row = options_.batch == 0 ? i : rng.Below(i, rows);
    AddRow(begin + row, 1 / static_cast<double>(count), w, shift, out, &sums);
  }
  return Finish(sums, x, out);
}

Status RobustLogistic::Measure(std::span<const double> x, std::span<double> out) {
  const std::span<const double> w = x.first(features_), r = x.subspan(features_);
  const double shift = std::inner_product(w.begin(), w.end(), r.begin(), 0.0);
  all_.assign(x.size(), 0);
  Sums sums;
  for (int c = 0; c < num_clients(); ++c) {
    const auto [begin, end] = rows_.of(c);
    const double weight = 1 / (static_cast<double>(end - begin) * num_clients());
    for (size_t row = begin; row < end; ++row) AddRow(row, weight, w, shift, all_, &sums);
  }
  out[1] = Finish(sums, x, all_);
  out[0] = std::sqrt(std::inner_product(all_.begin(), all_.end(), all_.begin(), 0.0));
  out[2] = options_.price - std::inner_product(w.begin(), w.end(), w.begin(), 0.0) * sums.curvature;
  return OkStatus();
}

}  // namespace tw
