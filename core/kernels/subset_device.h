#pragma once
// subset.h on a GPU: messages, residuals and sums of marked elements, the same bits. The bitmap is
// made on the host (MarkSubset: each draw depends on the ones before) and copied.

#include "core/kernels/device.h"
#include "core/kernels/subset.h"

namespace tw::kernels::device {

struct MarkedSegment {
  float* buffer = nullptr;           // message; what AddMarked adds to
  const float* addend = nullptr;     // may be null
  float scale = 1.0f;                // of the addend; of what AddMarked adds
  float decoded_factor = 1.0f;       // of TakeMarked
  const uint64_t* bitmap = nullptr;  // BitmapWords(numel)
  uint8_t* values = nullptr;         // fp32 of the marked, at any address
  int64_t numel = 0;
  int64_t first_tile = 0;
};
// Numbers of scratch, one a tile.
constexpr int64_t MarkedScratch(int64_t tiles) { return tiles; }

// Three launches each.
void TakeMarked(Table<MarkedSegment> table, uint64_t* scratch, Stream stream);
void AddMarked(Table<MarkedSegment> table, uint64_t* scratch, Stream stream);

}  // namespace tw::kernels::device
