#pragma once
// index_pack.h on a GPU: the CPU's bodies.

#include "core/kernels/device.h"
#include "core/kernels/topk.h"

namespace tw::kernels::device {

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
