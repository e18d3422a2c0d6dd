#pragma once
// reduce.h on a GPU, a result for each segment, in device memory.
//
// Shape of the sums: pieces of kPiece elements counted from the segment's start have the sixteen
// lanes and the tree of reduce.h each; the pieces of a tile are added in rising order; 256 lanes
// then add the tiles in rising order (tile t to lane t % 256) and a tree adds the lanes. Fixed, so
// that all ranks agree whatever their devices; up to kPiece elements they are the CPU's bits,
// beyond that they differ from the CPU's in the last bits of a double.

#include "core/base/tensor_view.h"
#include "core/kernels/device.h"

namespace tw::kernels::device {

inline constexpr int64_t kPiece = 1024;
static_assert(kTile % kPiece == 0);

// Numbers of fp32; where that is said, of fp16 and bf16 too, which are widened.
struct ReduceSegment {
  const void* x = nullptr;
  int64_t numel = 0;
  int64_t first_tile = 0;
  DType dtype = DType::kF32;
  uint8_t unused[7] = {};  // no byte of a table is left to chance
};

// Doubles of scratch that a sum over a table needs.
constexpr int64_t SumScratch(int64_t tiles) { return tiles; }

// *not_finite = 1 when any element of any segment is NaN or infinite, else 0. Any type.
void FindNotFinite(Table<ReduceSegment> table, uint32_t* not_finite, Stream stream);
// The same, but never sets it to 0: several tables, one question.
void NoteNotFinite(Table<ReduceSegment> table, uint32_t* not_finite, Stream stream);
// out[segment]: sum of squares (any type) or of magnitudes; 0 for an empty one. Two launches.
void SumOfSquares(Table<ReduceSegment> table, double* scratch, double* out, Stream stream);
void SumAbs(Table<ReduceSegment> table, double* scratch, double* out, Stream stream);
// out[segment] = largest magnitude; 0 for an empty one. For finite numbers.
void LargestMagnitude(Table<ReduceSegment> table, float* out, Stream stream);

}  // namespace tw::kernels::device
