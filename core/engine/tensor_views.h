#pragma once
// From LibTorch's tensors to what the rest sees of them.

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "core/api/sketch.h"
#include "core/base/tensor_view.h"

namespace tw {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// The view of a contiguous tensor's memory, the host's or a device's.
TensorView ViewOf(const at::Tensor& tensor);
// What ranks agree on about each parameter, ids in registration order: the shapes in which their
// gradients travel.
std::vector<TensorSpec> SpecsOf(const NamedTensors& parameters, const Sketches& sketches = {});

}  // namespace tw
