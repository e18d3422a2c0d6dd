#pragma once
// shared_scale.h on a GPU, all blocks of all tensors of a bucket in a launch; the same bits. Scales
// lie in device memory: ranks agree on them there.

#include "core/kernels/device.h"
#include "core/kernels/shared_scale.h"

namespace tw::kernels::device {

// Blocks of `block` elements (a power of two of at least 8; the last one may be shorter) with a
// scale each. Element i draws number first_index + i of the stream.
struct LevelSegment {
  float* x = nullptr;
  float* scales = nullptr;  // [numel / block, rounded up]
  int8_t* codes = nullptr;  // at any address, as bytes are
  int64_t block = 0;
  uint64_t key = 0;
  uint64_t first_index = 0;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
// scales = largest magnitudes of the blocks. Two launches. For finite numbers.
void LargestOfBlocks(Table<LevelSegment> table, Stream stream);
// levels <= 127
void RoundToLevels(Table<LevelSegment> table, int levels, Stream stream);
// x = code * step
void ValuesOfLevels(Table<LevelSegment> table, int levels, Stream stream);

// Blocks of `block` elements, a power of two; the last one may be shorter and is a power of two as
// well. A thread block a block; quick up to kTile elements.
struct RotateSegment {
  float* x = nullptr;
  int64_t block = 0;
  uint64_t key = 0;
  uint64_t first_index = 0;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
// In place of PlaceTiles: a tile a block.
int64_t PlaceRotated(std::span<RotateSegment> segments);
void Rotate(Table<RotateSegment> table, Stream stream);
void RotateBack(Table<RotateSegment> table, Stream stream);

}  // namespace tw::kernels::device
