#pragma once
// AdamW on matrices whose m rests in 4 bits and whose v is an outer product of row and column means
// (optim/state/int4_factor.cc), all matrices of a bucket in five launches. Nothing like it is on
// the host, where the codec and tiles do it: 17.4 bytes a parameter, read and written.
//
//   1  factor of row i = R_i / mean(R), 0 where that mean is 0;  v_ij = factor_i C_j
//   2  new v = beta2 v + rest2 (grad_scale g)^2, summed by row and by column
//   3  R, C = means of it
//   4  as 1
//   5  AdamWElement on decoded m and on the fit v, which is final; m is encoded again
//
// Bits: m, its codes and scales are the host's. Sums of v are in fp64 as there, but in a shape of
// their own: a row in pieces of kFactorPanel columns (column j to lane j % 32, a tree over the
// warp, pieces in rising order), a column in pieces of kFactorSlab rows (row i to sum i % 8, these
// and the pieces in rising order), the mean of R element i to sum i % 256 and a tree. The shape
// depends on rows and cols alone, so all devices have the same bits; from the host's a mean differs
// where the order of a sum in fp64 tips its rounding to fp32, by one unit in the last place.

#include "core/kernels/device.h"
#include "core/kernels/state_steps.h"

namespace tw::kernels::device {

inline constexpr int64_t kFactorSlab = 128, kFactorPanel = 128;

// A matrix [numel / cols, cols].
struct FactorStepSegment {
  float* p = nullptr;
  const float* g = nullptr;
  uint8_t* m_codes = nullptr;
  float* m_scales = nullptr;
  float* v_means = nullptr;  // [rows + cols], rows first
  // Scratch, from UseFactorScratch: sums of pieces [panels, rows] and [slabs, cols].
  double* row_sums = nullptr;
  double* col_sums = nullptr;
  float* factors = nullptr;  // [rows]
  int64_t cols = 0;
  int64_t numel = 0;
  int64_t first_sum_tile = 0;  // tiles of slab by panel
  int64_t first_tile = 0;
};

// In place of PlaceTiles: numbers both kinds of tiles; returns those of kTile.
int64_t PlaceFactor(std::span<FactorStepSegment> segments);
int64_t FactorSumTiles(std::span<const FactorStepSegment> placed);
// Bytes, some 0.13 a parameter of large matrices; and where segments point into them (aligned to
// 8).
int64_t FactorScratchBytes(std::span<const FactorStepSegment> segments);
void UseFactorScratch(std::span<FactorStepSegment> segments, uint8_t* scratch);

// `sum_tiles` is FactorSumTiles of the table; coefficients lie in device memory.
void AdamWStepFactor(Table<FactorStepSegment> table, int64_t sum_tiles,
                     const AdamWCoefficients<float>* c, Stream stream);

}  // namespace tw::kernels::device
