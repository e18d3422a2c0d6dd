#pragma once
// normal.h on a GPU: the same numbers, bit for bit, on every device.

#include "core/kernels/device.h"
#include "core/kernels/normal.h"

namespace tw::kernels::device {

// out[b * stride + i] = scale * number 64 * (first_block + b) + i of the stream, b < numel / 64.
struct NormalSegment {
  float* out = nullptr;
  uint64_t key = 0;
  uint64_t first_block = 0;
  int64_t stride = kNormalBlock;
  float scale = 1.0f;
  int64_t numel = 0;  // whole blocks of kNormalBlock
  int64_t first_tile = 0;
};
void FillNormal(Table<NormalSegment> table, Stream stream);

}  // namespace tw::kernels::device
