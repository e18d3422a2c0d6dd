#pragma once
// What replicas compare.

#include <span>

#include "core/api/optimizer.h"

namespace tw {

// XXH3-64 over the parameters' bytes in name order.
uint64_t ParametersHash(std::span<const ParameterView> parameters);

}  // namespace tw
