#pragma once
// Logistic regression whose clients see few labels: rows sorted by label, cut into runs of equal
// length (or divided otherwise, to compare with). The rows are drawn (GaussianRows) or read from a
// LIBSVM file of the user's.

#include <memory>
#include <string>

#include "examples/convergence/problems/logistic.h"

namespace tw {

struct LabelSortedOptions {
  std::string file;  // of the rows; empty: drawn
  uint64_t seed = 1;
  int64_t rows = 800, features = 100;  // drawn
  double label_noise = 0.5;            // in standard deviations of <x, w>
  int clients = 8;
  std::string split = "by_label";  // ShardOptions::kind; dirichlet with alpha 0.5
};

StatusOr<std::unique_ptr<LogisticProblem>> LabelSorted(const LabelSortedOptions& shape,
                                                       const LogisticOptions& options);

}  // namespace tw
