#include "examples/convergence/problems/client_logistic.h"

#include "core/data/libsvm.h"
#include "core/data/random_rows.h"

namespace tw {

StatusOr<std::unique_ptr<LogisticProblem>> ClientLogistic(const ClientLogisticOptions& shape,
                                                          const LogisticOptions& options) {
  SparseRows rows;
  if (shape.file.empty()) {
    rows = GaussianRows(shape.seed, shape.rows, shape.features, shape.label_noise);
  } else {
    TW_ASSIGN_OR_RETURN(rows, ReadLibsvm(shape.file));
  }
  return LogisticProblem::Create(
      rows, ShardOptions{.kind = shape.split, .seed = shape.seed, .world_size = shape.clients},
      options);
}

}  // namespace tw
