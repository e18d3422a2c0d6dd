#include <cmath>

#include "core/kernels/int8_block_device.h"
#include "core/kernels/launch.cuh"

namespace tw::kernels::device {
namespace {

// Elements of the block that this warp has; none beyond the last one.
struct RowBlock {
  int64_t index, begin, end;
};
__device__ RowBlock RowBlockOf(int64_t rows, int64_t cols) {
  const int64_t index = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  const int64_t per_row = Int8Blocks(cols), row = index / per_row;
  if (row >= rows) return {index, 0, 0};
  const int64_t from = index % per_row * kInt8Block;
  const int64_t to = from + kInt8Block < cols ? from + kInt8Block : cols;
  return {index, row * cols + from, row * cols + to};
}

__device__ int8_t CodeOf(float x, float scale) {
  const float inverse = 1.0f / scale;
  if (!(fabsf(inverse) <= 3.4028234664e38f)) {  // numbers below 127 denormal steps, or no number
    return scale > 0 ? static_cast<int8_t>(nearbyintf(x / scale)) : int8_t{0};
  }
  const float q = nearbyintf(x * inverse);
  return static_cast<int8_t>(q < -127.0f ? -127.0f : q > 127.0f ? 127.0f : q);
}

__global__ void __launch_bounds__(kThreads)
    QuantizeRows(const float* x, int64_t rows, int64_t cols, int8_t* codes, float* scales) {
  const RowBlock block = RowBlockOf(rows, cols);
  if (block.begin == block.end) return;
  unsigned most = 0;  // bits of the largest magnitude: Inf and above it NaN win
  for (int64_t i = block.begin + threadIdx.x % kWarp; i < block.end; i += kWarp) {
    const unsigned bits = __float_as_uint(x[i]) & 0x7FFFFFFFu;
    most = most < bits ? bits : most;
  }
  most = MaxAcrossWarp(most);
  const float scale = __uint_as_float(most >= 0x7F800000u ? 0x7FC00000u : most) / 127.0f;
  for (int64_t i = block.begin + threadIdx.x % kWarp; i < block.end; i += kWarp) {
    codes[i] = CodeOf(x[i], scale);
  }
  if (threadIdx.x % kWarp == 0) scales[block.index] = scale;
}

__global__ void __launch_bounds__(kThreads) DequantizeRows(const int8_t* codes, const float* scales,
                                                           int64_t rows, int64_t cols, float* out) {
  const RowBlock block = RowBlockOf(rows, cols);
  for (int64_t i = block.begin + threadIdx.x % kWarp; i < block.end; i += kWarp) {
    out[i] = static_cast<float>(codes[i]) * scales[block.index];
  }
}

int64_t BlocksOf(int64_t rows, int64_t cols) {
  return (rows * Int8Blocks(cols) + kWarps - 1) / kWarps;
}

}  // namespace

void QuantizeInt8(const float* x, int64_t rows, int64_t cols, int8_t* codes, float* scales,
                  Stream stream) {
  Launch(QuantizeRows, BlocksOf(rows, cols), kThreads, stream, x, rows, cols, codes, scales);
}
void DequantizeInt8(const int8_t* codes, const float* scales, int64_t rows, int64_t cols,
                    float* out, Stream stream) {
  Launch(DequantizeRows, BlocksOf(rows, cols), kThreads, stream, codes, scales, rows, cols, out);
}

}  // namespace tw::kernels::device
