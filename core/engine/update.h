#pragma once
// One update of all parameters, sketched gradients and parameters in bf16 included.

#include "core/api/optimizer.h"

namespace tw {

// optimizer.Step; of a bf16 parameter with context.masters as of an fp32 one with the gradient's
// values, whose bits then become the parameter: those of its copy, the slot
// "optimizer/<parameter>/master", or its own. Random numbers are a function of (seed, update,
// parameter, element), the same on every rank. For parameters with an expansion E in two halves:
//   u <- what the optimizer does to zeros that have this gradient;   p <- (1 - lr*decay) p + E(u)
// u exists for one parameter at a time, as a tensor of the gradient's size. Moments, and whatever
// else the optimizer keeps, have the gradient's size. REQUIRES: the optimizer's weight decay is
// decoupled or 0 where a parameter has an expansion.
Status Update(const Optimizer& optimizer, std::span<const ParameterView> parameters,
              const UpdateContext& context);

// Persistent bytes of what Update itself keeps for a parameter.
int64_t MasterBytes(const TensorSpec& spec, Masters masters);

}  // namespace tw
