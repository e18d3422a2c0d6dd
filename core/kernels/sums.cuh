#pragma once
// Sums of doubles in the fixed shape of reduce_device.h.

#include "core/kernels/launch.cuh"
#include "core/kernels/reduce_device.h"

namespace tw::kernels::device {

inline constexpr int kPieceLanes = 16;
// Of thread blocks in which a warp has a piece of a tile.
inline constexpr int kPiecesPerTile = kTile / kPiece, kPieceThreads = kPiecesPerTile * kWarp;

// The tree over the sixteen lanes of a sum; all lanes of the warp get the result.
__device__ inline double SumOfLanes(double sum) {
  for (int half = kPieceLanes / 2; half > 0; half /= 2) {
    sum += __shfl_down_sync(kWholeWarp, sum, half);
  }
  return __shfl_sync(kWholeWarp, sum, 0);
}

// Sum of term(i), i in [begin, end): element i to lane (i - begin) % 16, then a tree. Called by a
// whole warp; the lanes read rows of 32, some at once, and the lower half adds its own of a row
// first and then that of sixteen lanes above. All lanes get the sum.
template <class Term>
__device__ inline double SumOfPiece(int64_t begin, int64_t end, Term term) {
  constexpr int kRows = 8;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  double sum = 0;
  for (int64_t at = begin; at < end; at += kRows * kWarp) {
    double terms[kRows];
    for (int row = 0; row < kRows; ++row) {
      const int64_t i = at + row * kWarp + lane;
      terms[row] = i < end ? term(i) : 0.0;
    }
    for (int row = 0; row < kRows; ++row) {
      const double above = __shfl_down_sync(kWholeWarp, terms[row], kPieceLanes);
      sum += terms[row];
      sum += above;
    }
  }
  return SumOfLanes(sum);
}

// Sum of term(i), i in [0, count), by a block of kThreads threads, which all get it. `lanes` is
// shared memory for kThreads doubles.
template <class Term>
__device__ inline double SumOfTerms(int64_t count, Term term, double* lanes) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += term(i);
  lanes[threadIdx.x] = sum;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    const int lane = static_cast<int>(threadIdx.x);
    if (lane < half) lanes[lane] += lanes[lane + half];
    __syncthreads();
  }
  sum = lanes[0];
  __syncthreads();
  return sum;
}
__device__ inline double SumOfParts(const double* parts, int64_t count, double* lanes) {
  return SumOfTerms(
      count, [&](int64_t p) { return parts[p]; }, lanes);
}

}  // namespace tw::kernels::device
