#pragma once
// Rows for two-class logistic regression, drawn at random; pure functions of their arguments.
// label_values are -1 and +1.

#include <cstdint>

#include "core/data/labeled_data.h"

namespace tw {

// Dense: x ~ N(0, I), w ~ N(0, I), label sign(<x, w> + noise * |w| * N(0, 1)): the noise is in
// standard deviations of <x, w>.
SparseRows GaussianRows(uint64_t seed, int64_t count, int64_t features, double noise);

// Sparse: at most `nonzeros` columns a row, all equally likely, values N(0, 1); labels as above
// with noise 0.5 of the row's own norm. REQUIRES: nonzeros <= features.
SparseRows RandomSparseRows(uint64_t seed, int64_t count, int64_t features, int64_t nonzeros);

}  // namespace tw
