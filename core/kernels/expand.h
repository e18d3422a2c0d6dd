#pragma once
// What brings an update in projected coordinates back to the parameter: a thin product, added in
// place, strip by strip of 64 columns so that the strip of the projection stays in cache.
//
//   value[i][j] = keep * value[i][j] + scale * sum_k update[i][k] * strip[k][j]     j < cols <= 64
//
// The sum over k goes up from 0 with multiplies and adds kept apart: the same bits on every SIMD
// target, whatever part of the rows a call is given. Thread safe on distinct rows.

#include <cstdint>

namespace tw::kernels {

inline constexpr int64_t kStripCols = 64;

struct ExpandShape {
  int64_t rows = 0;
  int64_t rank = 0;
  int64_t cols = 0;    // of the strip that count; at most kStripCols
  int64_t stride = 0;  // of value: elements from a row to the next
};

// update [rows, rank], strip [rank, kStripCols], both contiguous; value starts at the strip's first
// column.
void ExpandStrip(float* value, const ExpandShape& shape, const float* update, const float* strip,
                 float keep, float scale);

// One element at a time.
void ExpandStripReference(float* value, const ExpandShape& shape, const float* update,
                          const float* strip, float keep, float scale);

}  // namespace tw::kernels
