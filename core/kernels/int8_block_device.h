#pragma once
// int8_block.h on a GPU: a warp a block, the same codes and scales.

#include "core/kernels/device.h"
#include "core/kernels/int8_block.h"

namespace tw::kernels::device {

// Contiguous matrices in device memory, as in int8_block.h.
void QuantizeInt8(const float* x, int64_t rows, int64_t cols, int8_t* codes, float* scales,
                  Stream stream);
void DequantizeInt8(const int8_t* codes, const float* scales, int64_t rows, int64_t cols,
                    float* out, Stream stream);

}  // namespace tw::kernels::device
