#pragma once
// Logistic regression on rows that are drawn (GaussianRows) or read from a LIBSVM file of the
// user's, with clients: as a rule each has a run of the rows sorted by label, and sees few labels.

#include <memory>
#include <string>

#include "examples/convergence/problems/logistic.h"

namespace tw {

struct ClientLogisticOptions {
  std::string file;  // of the rows; empty: drawn
  uint64_t seed = 1;
  int64_t rows = 800, features = 100;  // drawn
  double label_noise = 0.5;            // in standard deviations of <x, w>
  int clients = 8;
  std::string split = "by_label";  // ShardOptions::kind; dirichlet with alpha 0.5
};

StatusOr<std::unique_ptr<LogisticProblem>> ClientLogistic(const ClientLogisticOptions& shape,
                                                          const LogisticOptions& options);

}  // namespace tw
