#pragma once
// Norms of what a step leaves. Sums have fixed trees: every rank gets the same bits from the same
// numbers. On a device they wait for it; step_norms.h does not. Thread safe.

#include <span>
#include <vector>

#include "core/api/optimizer.h"

namespace tw {

// Of all gradients as one vector.
double GradientNorm(std::span<const ParameterView> parameters);
// Of this rank's error memories ("feedback/<parameter>/e"); 0 without any.
double ResidualNorm(const StateBag& state);
std::vector<TensorView> GradientsOf(std::span<const ParameterView> parameters);
std::vector<TensorView> ErrorMemoriesOf(const StateBag& state);
bool GradientsFinite(std::span<const ParameterView> parameters);

}  // namespace tw
