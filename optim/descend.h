#pragma once
// One step of gradient descent with momentum on one parameter of any dtype: what sgdm does with a
// gradient, local-step strategies do with the mean of what ranks moved.

#include "core/api/optimizer.h"
#include "core/kernels/optimizer.h"

namespace tw {

// m is shaped as the parameter, MomentDType (optim/elementwise.h) numbers; without memory for a
// momentum of 0. Element-wise: the bits depend on no thread count or vector width.
void Descend(const ParameterView& parameter, TensorView m,
             const kernels::SgdmCoefficients<double>& coefficients);

}  // namespace tw
