#pragma once
// What strategies with clients share: who takes part in a step, and means of a client's gradients.

#include <vector>

#include "core/api/strategy.h"

namespace tw {

// round(participation * n) clients, one at least, drawn without replacement by randomness that all
// ranks share, in rising order; empty when that is all of them. `memory` holds the answer. Uses
// numbers 0 .. n - 1 of the step's shared stream.
std::span<const int> DrawClients(const StepMachine& machine, double participation,
                                 std::vector<int>* memory);

// sum = grad when it is the first, else sum += grad. `sum` has the dtype of states (MomentDType).
void AddGradient(TensorView grad, bool first, TensorView sum);
// grad = (sum + grad) / count: the last gradient need not go through the sum.
void FinishMean(TensorView sum, int64_t count, TensorView grad);

}  // namespace tw
