#include "examples/convergence/problems/logistic.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tw {
namespace {

double Product(std::span<const double> a, std::span<const double> b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

double Norm(std::span<const double> a) { return std::sqrt(Product(a, a)); }

}  // namespace

LogisticProblem::LogisticProblem(ClientRows rows, const LogisticOptions& options)
    : VectorProblem(rows.num_clients(), rows.features), options_(options), rows_(std::move(rows)) {}

StatusOr<std::unique_ptr<LogisticProblem>> LogisticProblem::Create(
    const SparseRows& rows, const std::vector<std::vector<int64_t>>& clients,
    const LogisticOptions& options) {
  TW_ASSIGN_OR_RETURN(ClientRows own, ClientRows::Create(rows, clients));
  return std::unique_ptr<LogisticProblem>(new LogisticProblem(std::move(own), options));
}

StatusOr<std::unique_ptr<LogisticProblem>> LogisticProblem::Create(const SparseRows& rows,
                                                                   const ShardOptions& shards,
                                                                   const LogisticOptions& options) {
  TW_ASSIGN_OR_RETURN(const auto clients, Shards(rows.labels, shards));
  return Create(rows, clients, options);
}

void LogisticProblem::Start(std::span<double> x) { std::fill(x.begin(), x.end(), 0.0); }

// A dense row's columns need not be read. Four sums: additions need not wait for each other.
double LogisticProblem::Dot(size_t row, std::span<const double> x) const {
  const size_t begin = rows_.row_begin[row], count = rows_.row_begin[row + 1] - begin;
  const double* const a = rows_.values.data() + begin;
  double sums[4] = {0, 0, 0, 0};
  size_t k = 0;
  if (count == x.size()) {
    for (; k + 4 <= count; k += 4) {
      for (size_t j = 0; j < 4; ++j) sums[j] += a[k + j] * x[k + j];
    }
    for (; k < count; ++k) sums[0] += a[k] * x[k];
  } else {
    const int32_t* const column = rows_.columns.data() + begin;
    for (; k < count; ++k) {
      sums[k % 4] += a[k] * x[static_cast<size_t>(column[k])];
    }
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

void LogisticProblem::AddRow(size_t row, double factor, std::span<double> out) const {
  const size_t begin = rows_.row_begin[row], count = rows_.row_begin[row + 1] - begin;
  const double* const a = rows_.values.data() + begin;
  if (count == out.size()) {
    for (size_t k = 0; k < count; ++k) out[k] += factor * a[k];
    return;
  }
  const int32_t* const column = rows_.columns.data() + begin;
  for (size_t k = 0; k < count; ++k) {
    out[static_cast<size_t>(column[k])] += factor * a[k];
  }
}

double LogisticProblem::AddLoss(size_t row, double weight, std::span<const double> x,
                                std::span<double> out) const {
  const double y = static_cast<double>(rows_.signs[row]);
  const LogLoss loss(y * Dot(row, x));
  AddRow(row, -weight * y * loss.slope, out);
  return loss.value;
}

double LogisticProblem::Regularise(std::span<const double> x, std::span<double> out) const {
  const double l2 = options_.l2, nonconvex = options_.nonconvex;
  double value = 0;
  if (nonconvex == 0) {
    for (size_t j = 0; j < x.size(); ++j) out[j] = l2 * x[j];
    if (l2 != 0) value = l2 / 2 * Product(x, x);
    return value;
  }
  for (size_t j = 0; j < x.size(); ++j) {
    const double square = x[j] * x[j], below = 1 + square;
    out[j] = l2 * x[j] + 2 * nonconvex * x[j] / (below * below);
    value += l2 / 2 * square + nonconvex * square / below;
  }
  return value;
}

// R. W. Floyd's sample without replacement (CACM 30, 1987): all sets are equally likely.
void LogisticProblem::DrawBatch(const RngStream& rng, size_t rows) {
  const size_t count = std::min(static_cast<size_t>(options_.batch), rows);
  drawn_.clear();
  for (size_t last = rows - count; last < rows; ++last) {
    const size_t drawn = rng.Below(drawn_.size(), last + 1);
    const bool taken = std::find(drawn_.begin(), drawn_.end(), drawn) != drawn_.end();
    drawn_.push_back(taken ? last : drawn);
  }
}

StatusOr<double> LogisticProblem::Gradient(const GradientCall& call, std::span<const double> x,
                                           std::span<double> out) {
  const double regulariser = Regularise(x, out);
  const ClientRows::Range rows = rows_.of(call.client);
  double loss = 0;
  if (options_.batch == 0) {
    for (size_t r = rows.begin; r < rows.end; ++r) loss += AddLoss(r, rows.weight(), x, out);
    return regulariser + loss * rows.weight();
  }
  DrawBatch(call.noise(), rows.end - rows.begin);
  const double weight = 1.0 / static_cast<double>(drawn_.size());
  for (const size_t r : drawn_) loss += AddLoss(rows.begin + r, weight, x, out);
  return regulariser + loss * weight;
}

double LogisticProblem::Full(std::span<const double> x, std::span<double> out,
                             std::vector<double>* curvature) const {
  double value = Regularise(x, out);
  if (curvature) curvature->clear();
  const double share = 1.0 / num_clients();
  for (int client = 0; client < num_clients(); ++client) {
    const ClientRows::Range rows = rows_.of(client);
    const double weight = share * rows.weight();
    for (size_t r = rows.begin; r < rows.end; ++r) {
      const double y = static_cast<double>(rows_.signs[r]);
      const LogLoss loss(y * Dot(r, x));
      AddRow(r, -weight * y * loss.slope, out);
      value += weight * loss.value;
      if (curvature) curvature->push_back(weight * loss.slope * (1 - loss.slope));
    }
  }
  return value;
}

Status LogisticProblem::Measure(std::span<const double> x, std::span<double> out) {
  all_.resize(x.size());
  out[1] = Full(x, all_, nullptr);
  out[0] = Norm(all_);
  return OkStatus();
}

double LogisticProblem::Smoothness(int client) const {
  const auto d = static_cast<size_t>(rows_.features);
  std::vector<double> v(d), next(d);
  const RngStream rng = RngStream::Of(1, RngPurpose::kProblem, 0, 0, kSharedRank);
  for (size_t j = 0; j < d; ++j) v[j] = static_cast<double>(rng.Uniform(j)) - 0.5;
  const int first = client < 0 ? 0 : client, last = client < 0 ? num_clients() : client + 1;
  double largest = 0;
  for (int step = 0; step < 1000; ++step) {
    const double norm = Norm(v);
    if (norm == 0) break;
    for (double& x : v) x /= norm;
    std::fill(next.begin(), next.end(), 0.0);
    for (int c = first; c < last; ++c) {
      const ClientRows::Range rows = rows_.of(c);
      const double weight = rows.weight() / (last - first);
      for (size_t r = rows.begin; r < rows.end; ++r) AddRow(r, weight * Dot(r, v), next);
    }
    const double before = largest;
    largest = Product(v, next);
    std::swap(v, next);
    if (std::abs(largest - before) <= 1e-8 * largest) break;
  }
  return largest / 4 + options_.l2 + 2 * options_.nonconvex;
}

// Newton's method; the system H s = g by conjugate gradients, the step halved until f falls.
StatusOr<double> LogisticProblem::Minimize(std::vector<double>* x) const {
  if (options_.l2 <= 0 || options_.nonconvex > 0) {
    return ConfigError("the minimum is found for the convex problem with l2 > 0 only");
  }
  const auto d = static_cast<size_t>(rows_.features);
  x->assign(d, 0.0);
  std::vector<double> g(d), s(d), r(d), p(d), hp(d), trial(d), curvature;
  double value = Full(*x, g, &curvature);
  for (int step = 0; step < 100; ++step) {
    const double norm = Norm(g);
    if (norm <= 1e-12) return value;
    std::fill(s.begin(), s.end(), 0.0);
    r = g;
    p = g;
    double rr = Product(r, r);
    const double enough = std::min(0.1, norm) * norm;  // converges quadratically
    for (size_t k = 0; k < 20 * d && std::sqrt(rr) > enough; ++k) {
      for (size_t j = 0; j < d; ++j) hp[j] = options_.l2 * p[j];
      for (size_t row = 0; row < curvature.size(); ++row) {
        AddRow(row, curvature[row] * Dot(row, p), hp);
      }
      const double a = rr / Product(p, hp);
      for (size_t j = 0; j < d; ++j) {
        s[j] += a * p[j];
        r[j] -= a * hp[j];
      }
      const double next = Product(r, r);
      for (size_t j = 0; j < d; ++j) p[j] = r[j] + next / rr * p[j];
      rr = next;
    }
    double length = 1, found = value;
    do {
      for (size_t j = 0; j < d; ++j) trial[j] = (*x)[j] - length * s[j];
      found = Full(trial, g, &curvature);
      length /= 2;
    } while (found > value && length > 1e-3 && norm > 1e-6);
    *x = trial;
    value = found;
  }
  return NumbersError("Newton's method did not reach |grad f| <= 1e-12 in 100 steps");
}

}  // namespace tw
