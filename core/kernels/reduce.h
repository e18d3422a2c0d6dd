#pragma once
// Reductions of flat fp32 spans to a scalar.
//
// The sums have a fixed shape: element i is added, as a double, to lane i % 16 in ascending order
// of i; the lanes are then added in a binary tree (0+8, 1+9, ..., then 4, 2, 1). That makes them
// independent of the vector width, so all ranks agree on them whatever their processors. Thread
// safe.
//
// For the host's memory only: a result that the host waits for is asked of a device for many
// tensors at once, DeviceKernels::CheckFinite and SumsOfSquares.

#include <span>

namespace tw::kernels {

// False when any element is NaN or infinite. One read pass.
bool AllFinite(std::span<const float> x);
// Sum of squares; 0 for an empty span.
double SumOfSquares(std::span<const float> x);
// Sum of magnitudes; 0 for an empty span.
double SumAbs(std::span<const float> x);
// SumAbs / size; 0 for an empty span.
double MeanAbs(std::span<const float> x);

}  // namespace tw::kernels
