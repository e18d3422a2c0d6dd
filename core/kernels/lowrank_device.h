#pragma once
// lowrank.h on a GPU, all matrices of a bucket in a launch. OuterAdd, OuterResidual and
// Orthonormalize have the CPU's bits; the two products differ from it in the last bits (their sums
// have another order) and are the same in every run, wherever the matrices lie. Nothing is written
// of a matrix without elements.

#include "core/kernels/device.h"
#include "core/kernels/lowrank.h"

namespace tw::kernels::device {

inline constexpr int64_t kSlabRows = 256;  // rows that TransposeTimesM adds up before the others

struct LowRankSegment {
  float* m = nullptr;             // [rows, cols]: message, residual or what is added to
  const float* addend = nullptr;  // may be null
  float scale = 1.0f;             // of the addend; of what OuterAdd adds
  LowRankShape shape;
  float* p = nullptr;         // [rows, rank]
  float* qt = nullptr;        // [rank, cols]
  float* partial = nullptr;   // TransposeTimesM: LowRankPartial(shape) floats
  double* columns = nullptr;  // Orthonormalize: rows * rank doubles
  int64_t numel = 0;          // rows * cols
  int64_t first_tile = 0;
};
inline int64_t LowRankPartial(const LowRankShape& shape) {
  return (shape.rows + kSlabRows - 1) / kSlabRows * shape.rank * shape.cols;
}

// Performs the pending addition; p = M Q.
void MaterializeTimesQ(Table<LowRankSegment> table, Stream stream);
// qt = P^T M. Two launches.
void TransposeTimesM(Table<LowRankSegment> table, Stream stream);
void OuterResidual(Table<LowRankSegment> table, Stream stream);
void OuterAdd(Table<LowRankSegment> table, Stream stream);
// Of p, a thread block a matrix.
void Orthonormalize(Table<LowRankSegment> table, Stream stream);

// UnitRows, DrawUniform and TransposeScaled of lowrank.h, with the CPU's bits.
struct UnitRowsSegment {
  const float* from = nullptr;  // [rows, cols]; null: all rows are drawn
  float* to = nullptr;          // may be `from`
  uint64_t key = 0;             // of this step
  int64_t cols = 0;
  int64_t numel = 0;  // rows * cols
  int64_t first_tile = 0;
};
// In place of PlaceTiles: a tile a row.
int64_t PlaceUnitRows(std::span<UnitRowsSegment> segments);
void UnitRows(Table<UnitRowsSegment> table, Stream stream);

struct DrawSegment {
  float* out = nullptr;
  uint64_t key = 0;  // of this step
  uint64_t first = 0;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
void DrawUniform(Table<DrawSegment> table, Stream stream);

struct TransposeSegment {
  const float* from = nullptr;  // [numel / cols, cols]
  float* to = nullptr;          // [cols, numel / cols]
  float factor = 1.0f;
  int64_t cols = 0;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
void TransposeScaled(Table<TransposeSegment> table, Stream stream);

}  // namespace tw::kernels::device
