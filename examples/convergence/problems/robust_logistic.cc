#include "examples/convergence/problems/robust_logistic.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tw {

RobustLogistic::RobustLogistic(int clients, int64_t features, const RobustLogisticOptions& options)
    : VectorProblem(clients, 2 * features),
      options_(options),
      features_(static_cast<size_t>(features)) {}

StatusOr<std::unique_ptr<RobustLogistic>> RobustLogistic::Create(
    const SparseRows& rows, const std::vector<std::vector<int64_t>>& clients,
    const RobustLogisticOptions& options) {
  if (rows.classes != 2) {
    return ConfigError("logistic regression is for 2 classes, the rows have " +
                       std::to_string(rows.classes));
  }
  std::unique_ptr<RobustLogistic> p(
      new RobustLogistic(static_cast<int>(clients.size()), rows.features, options));
  for (size_t client = 0; client < clients.size(); ++client) {
    if (clients[client].empty()) {
      return ConfigError("client " + std::to_string(client) + " has no rows");
    }
    for (const int64_t position : clients[client]) {
      const auto row = static_cast<size_t>(position);
      for (int64_t k = rows.row_begin[row]; k < rows.row_begin[row + 1]; ++k) {
        p->columns_.push_back(static_cast<size_t>(rows.columns[static_cast<size_t>(k)]));
        p->values_.push_back(static_cast<double>(rows.values[static_cast<size_t>(k)]));
      }
      p->row_begin_.push_back(p->columns_.size());
      p->signs_.push_back(rows.labels[row] == 1 ? 1 : -1);
    }
    p->client_begin_.push_back(p->signs_.size());
  }
  return p;
}

void RobustLogistic::Start(std::span<double> x) { std::fill(x.begin(), x.end(), 0.0); }

void RobustLogistic::AddRow(size_t row, double weight, std::span<const double> w, double shift,
                            std::span<double> out, Sums* sums) const {
  double score = 0;
  for (size_t k = row_begin_[row]; k < row_begin_[row + 1]; ++k) {
    score += values_[k] * w[columns_[k]];
  }
  const double margin = signs_[row] * score - shift;
  const double e = std::exp(-std::abs(margin));
  const double slope = margin < 0 ? 1 / (1 + e) : e / (1 + e);  // 1 / (1 + exp(margin))
  for (size_t k = row_begin_[row]; k < row_begin_[row + 1]; ++k) {
    out[columns_[k]] -= weight * signs_[row] * slope * values_[k];
  }
  sums->loss += weight * (std::log1p(e) + (margin < 0 ? -margin : 0));
  sums->slope += weight * slope;
  sums->curvature += weight * slope * (1 - slope);
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
  const auto client = static_cast<size_t>(call.client);
  const size_t begin = client_begin_[client], rows = client_begin_[client + 1] - begin;
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
    const size_t begin = client_begin_[static_cast<size_t>(c)],
                 end = client_begin_[static_cast<size_t>(c) + 1];
    const double weight = 1 / (static_cast<double>(end - begin) * num_clients());
    for (size_t row = begin; row < end; ++row) AddRow(row, weight, w, shift, all_, &sums);
  }
  out[1] = Finish(sums, x, all_);
  out[0] = std::sqrt(std::inner_product(all_.begin(), all_.end(), all_.begin(), 0.0));
  out[2] = options_.price - std::inner_product(w.begin(), w.end(), w.begin(), 0.0) * sums.curvature;
  return OkStatus();
}

}  // namespace tw
