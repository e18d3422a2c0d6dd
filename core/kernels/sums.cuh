#pragma once
// Sums of doubles in the fixed shape of reduce_device.h.

#include "core/kernels/launch.cuh"
#include "core/kernels/reduce_device.h"

namespace tw::kernels::device {

inline constexpr int kPieceLanes = 16;

// Sum of term(i), i in [begin, end), at most a piece: element i to lane (i - begin) % 16, then a
// tree. Called by a whole warp; the lower half works, all lanes get the sum.
template <class Term>
__device__ inline double SumOfPiece(int64_t begin, int64_t end, Term term) {
  const int lane = threadIdx.x % kWarp;
  double sum = 0;
  if (lane < kPieceLanes) {
    for (int64_t i = begin + lane; i < end; i += kPieceLanes) sum += term(i);
  }
  for (int half = kPieceLanes / 2; half > 0; half /= 2) {
    const double other = __shfl_down_sync(kWholeWarp, sum, half);
    sum += other;
  }
  return __shfl_sync(kWholeWarp, sum, 0);
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
__device__ inline double SumOfPieces(const double* pieces, int64_t count, double* lanes) {
  return SumOfTerms(
      count, [&](int64_t p) { return pieces[p]; }, lanes);
}

}  // namespace tw::kernels::device
