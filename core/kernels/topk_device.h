#pragma once
// topk.h on a GPU: exactly the CPU's elements, equal magnitudes by lower index, in ascending order.
//
// Radix selection on the 31 bits of magnitudes, 11 + 10 + 10 from the top: a histogram of a digit
// over all segments at once, the digit of the k-th largest of each, and so on; then the elements
// above the cut and as many at it as are wanted are counted by tile, placed, and moved out. Counts
// stay on the device. No sample, no fallback: the time does not depend on the values.

#include "core/kernels/device.h"
#include "core/kernels/topk.h"

namespace tw::kernels::device {

struct TopKSegment {
  float* buffer = nullptr;
  const float* addend = nullptr;  // may be null
  float scale = 1.0f;
  uint32_t k = 0;               // <= numel; for TakeAbove the room of `out`
  IndexedValue* out = nullptr;  // [k]
  uint32_t* found = nullptr;    // TakeAbove: how many there are
  int64_t numel = 0;            // below 2^32
  int64_t first_tile = 0;
};

// Bytes of scratch for a table, aligned to 8.
int64_t TopKScratchBytes(int32_t count, int64_t tiles);

// Performs the pending additions and moves the k largest of each segment out; the buffers then hold
// the residuals. Nine launches however many segments.
void TakeTopK(Table<TopKSegment> table, void* scratch, Stream stream);
// The same in one launch and without scratch, for segments of at most kTile elements: the chunks of
// chunked_topk, a segment each.
void TakeTopKShort(Table<TopKSegment> table, Stream stream);
// Moves every element with |x| > threshold (>= 0) out and leaves the count at `found`; when that is
// more than k nothing is moved but the addition is done. Four launches.
void TakeAbove(Table<TopKSegment> table, float threshold, void* scratch, Stream stream);

// Lists of elements and their bodies, at any address: indices of `bits` bits (index_pack.h, zero
// padding) and fp32 values.
struct IndexSegment {
  const IndexedValue* list = nullptr;  // PackIndices reads it
  int bits = 0;
  uint8_t* packed = nullptr;  // PackedIndexBytes(numel, bits)
  uint8_t* values = nullptr;  // 4 numel bytes
  float* out = nullptr;       // AddAtIndices adds to it
  int64_t out_numel = 0;
  float scale = 1.0f;
  int64_t numel = 0;  // of entries
  int64_t first_tile = 0;
};
void PackIndices(Table<IndexSegment> table, Stream stream);
// out[index j] += scale * value j, where the index lies in `out`. REQUIRES: indices of a segment
// are distinct.
void AddAtIndices(Table<IndexSegment> table, Stream stream);

// Lists whose values are codes on the grids of their groups (value_grid.h), and their bodies, at
// any address: indices as above; for every group fp32 a, fp32 b and its codes, padded to a byte.
struct GridSegment {
  const IndexedValue* list = nullptr;  // PackEntriesOnGrids reads it
  float* buffer = nullptr;             // it was taken out of; gets back what the codes lose
  int index_bits = 0;
  uint8_t* packed = nullptr;  // PackedIndexBytes(numel, index_bits)
  int value_bits = 0;         // 2 .. 16
  int64_t group = 0;          // entries that share a grid: numel, or a multiple of 8
  uint8_t* values = nullptr;  // GridBytes(numel, group, value_bits)
  float* out = nullptr;       // AddAtIndicesFromGrids adds to it
  int64_t out_numel = 0;
  float scale = 1.0f;
  int64_t numel = 0;  // of entries
  int64_t first_tile = 0;
};
// In place of PlaceTiles: a tile a group.
int64_t PlaceGrids(std::span<GridSegment> segments);
void PackEntriesOnGrids(Table<GridSegment> table, Stream stream);
void AddAtIndicesFromGrids(Table<GridSegment> table, Stream stream);

}  // namespace tw::kernels::device
