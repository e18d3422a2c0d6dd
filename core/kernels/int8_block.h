#pragma once
// Rows of numbers in 8 bits, one scale for 128 of them.
//
//   scale = max |x| / 127 over a block;   code = nearest integer to x / scale, ties to even
// A block of zeros has scale 0. One with something that is not finite has scale NaN, so that what
// comes back is not finite either. Blocks start anew in every row; the last of a row may be short.
// Thread safe; every target gives the same bits.

#include <cstdint>

namespace tw::kernels {

inline constexpr int64_t kInt8Block = 128;
inline constexpr int64_t Int8Blocks(int64_t cols) { return (cols + kInt8Block - 1) / kInt8Block; }

// x, codes [rows, cols]; scales [rows, Int8Blocks(cols)].
void QuantizeInt8(const float* x, int64_t rows, int64_t cols, int8_t* codes, float* scales);
// out = code * scale.
void DequantizeInt8(const int8_t* codes, const float* scales, int64_t rows, int64_t cols,
                    float* out);

}  // namespace tw::kernels
