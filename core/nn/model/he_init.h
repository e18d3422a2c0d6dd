#pragma once
// How the classifiers' weights start; see classifiers.h.

#include <cmath>

#include "core/nn/init.h"
#include "core/nn/torch.h"

namespace tw {

// Fills every weight with at least two dimensions; biases and norms keep what their layer set.
inline void InitHe(uint64_t seed, torch::nn::Module& model) {
  for (const auto& item : model.named_parameters()) {
    const at::Tensor& w = item.value();
    if (w.dim() < 2) continue;
    const double fan_in = static_cast<double>(w.numel() / w.size(0));
    const double gain = item.key() == "head.weight" ? 1 : 2;
    InitNormal(seed, item.key(), std::sqrt(gain / fan_in), w);
  }
}

}  // namespace tw
