#pragma once
// Element-wise moves between dtypes. fp32, fp16 and bf16 go through the kernels; fp64 and 16-bit
// destinations of a sum are converted one by one (rare, and off the hot path of fp32 training).
// Rounding is to nearest even; stores to fp16 saturate at +-65504. Views may lie at any address. In
// a DeviceScope they are the device's, and there is no fp64.

#include <span>

#include "core/base/tensor_view.h"

namespace tw {

float HalfToFloat(uint16_t bits);
uint16_t FloatToHalf(float value);
float Bf16ToFloat(uint16_t bits);
uint16_t FloatToBf16(float value);

// to[i] += scale * from[i], computed in fp32 (fp64 when either side is fp64).
void AddScaled(TensorView to, TensorView from, float scale);
// to[i] = from[i].
void ConvertToFp32(TensorView from, std::span<float> to);
void ConvertFromFp32(std::span<const float> from, TensorView to);
// `fp32` held the fp32 copy of buffer and now holds that copy's residual: buffer becomes its own
// residual, i.e. keeps the part that fp32 could not hold (fp64) and takes over the residual.
void ReplaceByResidual(TensorView buffer, std::span<const float> fp32_residual);
void FillZero(TensorView view);
// False when any element is NaN or infinite. Of the host's memory; on a device see CheckFinite in
// core/kernels/device_kernels.h.
bool AllFinite(TensorView view);

}  // namespace tw
