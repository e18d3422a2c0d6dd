#pragma once
// Labeled samples that need no file; pure functions of the seed.

#include <cstdint>

#include "core/data/labeled_data.h"

namespace tw {

// `count` images of 28 x 28 in 10 classes: each class is a pattern of eight soft spots, moved by up
// to 2 pixels, under noise.
ImageData SyntheticImages(uint64_t seed, int64_t count);

// `count` rows of 32 features in 2 classes: the sign of a hidden linear function, wrong for about
// one row in ten.
SparseRows SyntheticRows(uint64_t seed, int64_t count);

}  // namespace tw
