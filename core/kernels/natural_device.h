#pragma once
// natural.h on a GPU: the same bodies, residuals and sums. One launch a table; bodies lie at any
// address.

#include "core/kernels/device.h"
#include "core/kernels/natural.h"

namespace tw::kernels::device {

struct NaturalSegment {
  float* buffer = nullptr;        // message; what NaturalDecodeAdd adds to
  const float* addend = nullptr;  // may be null
  float scale = 1.0f;             // of the addend; of what NaturalDecodeAdd adds
  uint8_t* body = nullptr;        // NaturalBytes(numel)
  uint64_t key = 0;               // of this step
  uint64_t first_index = 0;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
void NaturalEncode(Table<NaturalSegment> table, Stream stream);
// REQUIRES: CheckNatural passed.
void NaturalDecodeAdd(Table<NaturalSegment> table, Stream stream);

}  // namespace tw::kernels::device
