#pragma once
// One update of all parameters, sketched gradients included.

#include "core/api/optimizer.h"

namespace tw {

// optimizer.Step, for parameters with an expansion E in two halves:
//   u <- what the optimizer does to zeros that have this gradient;   p <- (1 - lr*decay) p + E(u)
// u exists for one parameter at a time, as a tensor of the gradient's size. Moments, and whatever
// else the optimizer keeps, have the gradient's size. REQUIRES: the optimizer's weight decay is
// decoupled or 0 where a parameter has an expansion.
Status Update(const Optimizer& optimizer, std::span<const ParameterView> parameters,
              const UpdateContext& context);

}  // namespace tw
