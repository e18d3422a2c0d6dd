#pragma once
// A small convolutional network for ImageProblem.
//   conv1 3x3 -> channels, ReLU;  conv2 3x3 -> 2 channels, ReLU;  scores = a linear head
// Both convolutions take every second place, with zeros beyond the edges, in place of pooling
// (Springenberg et al., arXiv 1412.6806): a quarter of the work.
// theta = W1 [channels, in, 3, 3], b1, W2 [2 channels, channels, 3, 3], b2, W3 [classes, 2 channels
// * height/4 * width/4], b3, as PyTorch orders them; 9098 numbers for 28 x 28, 10 classes and 8
// channels.
// Start: W1, W2, W3 ~ N(0, 2 / fan_in), biases 0.

#include "examples/convergence/problems/image_problem.h"

namespace tw {

// `images` outlives the network.
std::unique_ptr<ImageNetwork> ImageCnn(const ImageData* images, int64_t channels = 8);

}  // namespace tw
