#pragma once
// A gradient in coordinates of its own: fewer numbers than the parameter has. Everything between
// backward and the optimizer (compressor, feedback, exchange, norm, moments) works on the sketch as
// on any gradient, and knows nothing of it; an Expansion takes the finished update back to the
// parameter. See docs/adr/0013.

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "core/api/optimizer.h"

namespace tw {

// A parameter [m, n] whose gradient arrives as [m, r].
struct GradientSketch {
  // Takes the gradient in the parameter's place: a leaf of the graph of shape [m, r], whose own
  // numbers nobody reads (they need no memory: one zero, expanded).
  at::Tensor leaf;
  const Expansion* expansion = nullptr;  // owned by the model
};

// By parameter name; parameters that are not in it have gradients of their own shape.
using Sketches = std::map<std::string, GradientSketch>;

// Where a parameter's gradient arrives.
inline const at::Tensor& GradientLeaf(const Sketches& sketches, const std::string& name,
                                      const at::Tensor& parameter) {
  const auto it = sketches.find(name);
  return it == sketches.end() ? parameter : it->second.leaf;
}

}  // namespace tw
