#pragma once
// expand.h on a GPU: all strips of a parameter in one launch, the same bits.

#include "core/kernels/device.h"
#include "core/kernels/expand.h"

namespace tw::kernels::device {

// value[i][j] = keep * value[i][j] + scale * sum_k update[i][k] * projection[k][j]. value [rows,
// cols] and update [rows, rank] are contiguous; the projection lies in strips of kStripCols columns
// one after the other, each [rank, kStripCols], the last one padded.
struct ExpandSegment {
  float* value = nullptr;
  const float* update = nullptr;
  const float* projection = nullptr;
  float keep = 1.0f;
  float scale = 1.0f;
  int64_t rank = 0;
  int64_t cols = 0;
  int64_t numel = 0;  // rows * cols
  int64_t first_tile = 0;
};
void Expand(Table<ExpandSegment> table, Stream stream);

}  // namespace tw::kernels::device
