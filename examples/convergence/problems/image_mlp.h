#pragma once
// A network of one hidden layer for ImageProblem.
//   z1 = b1 + a W1;  scores = b2 + max(0, z1) W2
// theta = W1 [pixels, hidden], b1, W2 [hidden, classes], b2.
// Start: W1, W2 ~ N(0, 2 / fan_in), biases 0.

#include "examples/convergence/problems/image_problem.h"

namespace tw {

// `images` outlives the network.
std::unique_ptr<ImageNetwork> ImageMlp(const ImageData* images, int64_t hidden = 64);

}  // namespace tw
