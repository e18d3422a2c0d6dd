#pragma once
// Clipping of gradients by their norm, without a look at the norm on the host.

#include "core/kernels/reduce_device.h"

namespace tw::kernels::device {

// Steps multiply their gradients by limit / *norm, rounded to fp32, where *norm is above the limit.
struct StepClip {
  double limit = 0;              // 0: they do not
  const double* norm = nullptr;  // of the device
};

// *norm = square root of the sum of sums[0 .. count), added in this order.
void NormOfSums(const double* sums, int count, double* norm, Stream stream);
// *grad_scale *= the factor. No launch without a limit.
void ClipScale(const StepClip& clip, float* grad_scale, Stream stream);

// Each tensor, of any type of reduce_device.h, on its own: x <- x + (limit / norm - 1) x, the
// factor rounded to fp32 and the sum to x's type, where sqrt(sums[segment]) = norm is above the
// limit.
void ClipEach(Table<ReduceSegment> table, double limit, const double* sums, Stream stream);

}  // namespace tw::kernels::device
