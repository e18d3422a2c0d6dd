#pragma once
// Sparse rows of two classes with clients, and the loss of logistic regression on them.

#include <cmath>
#include <vector>

#include "core/base/status.h"
#include "core/data/labeled_data.h"

namespace tw {

// In client order, so that a client's rows lie together.
struct ClientRows {
  struct Range {
    size_t begin = 0, end = 0;
    double weight() const { return 1.0 / static_cast<double>(end - begin); }
  };

  // clients[i]: positions in `rows`, of any sizes above 0. ConfigError: not two classes, a client
  // without rows.
  static StatusOr<ClientRows> Create(const SparseRows& rows,
                                     const std::vector<std::vector<int64_t>>& clients);

  int num_clients() const { return static_cast<int>(client_begin.size()) - 1; }
  Range of(int client) const {
    const auto c = static_cast<size_t>(client);
    return {client_begin[c], client_begin[c + 1]};
  }

  int64_t features = 0;
  std::vector<size_t> client_begin{0}, row_begin{0};
  std::vector<int32_t> columns;
  std::vector<double> values;
  std::vector<float> signs;  // y = +-1
};

// log(1 + exp(-z)), and the logistic function of -z, without overflow.
struct LogLoss {
  double value, slope;  // slope: 1 / (1 + exp(z))
  explicit LogLoss(double z) {
    const double e = std::exp(-std::abs(z));
    value = std::log1p(e) + (z < 0 ? -z : 0);
    slope = z < 0 ? 1 / (1 + e) : e / (1 + e);
  }
};

}  // namespace tw
