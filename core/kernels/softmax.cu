#include "core/kernels/softmax_device.h"

#include <cmath>
#include <limits>

#include "core/kernels/launch.cuh"

namespace tw::kernels::device {
namespace {

__device__ float NotANumber() { return __uint_as_float(0x7FC00000u); }
__device__ float Infinite() { return __uint_as_float(0x7F800000u); }

// All threads of the block get the result; `shared` has room for kWarps.
template <class T, class Combine>
__device__ T AcrossBlock(T value, T* shared, Combine combine) {
  value = AcrossWarp(value, combine);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = shared[0];
  for (int w = 1; w < kWarps; ++w) value = combine(value, shared[w]);
  __syncthreads();
  return value;
}

struct Shared {
  float most[kWarps];
  double total[kWarps];
};

// `sum` with the scores of a row added.
__device__ LogSumExp Added(LogSumExp sum, const float* scores, int64_t cols, Shared& shared) {
  float most = -Infinite();
  for (int64_t j = threadIdx.x; j < cols; j += kThreads) {
    const float x = scores[j];
    most = x > most || x != x ? x : most;
    if (x != x) break;
  }
  // A NaN stays: what is compared with it is not larger.
  most = AcrossBlock(most, shared.most,
                     [](float a, float b) { return a != a || (b == b && a > b) ? a : b; });
  if (most != most || most == Infinite()) sum.sum = NotANumber();
  if (sum.sum != sum.sum || most == -Infinite()) return sum;
  const float top = fmaxf(sum.max, most);
  double total = 0;
  for (int64_t j = threadIdx.x; j < cols; j += kThreads) total += expf(scores[j] - top);
  total = AcrossBlock(total, shared.total, [](double a, double b) { return a + b; });
  const double before = sum.max == top ? 1.0 : exp(static_cast<double>(sum.max) - top);
  sum.sum = static_cast<float>(sum.sum * before + total);
  sum.max = top;
  return sum;
}

__device__ double ValueOf(const LogSumExp& sum) {
  return static_cast<double>(sum.max) + log(static_cast<double>(sum.sum));
}

__device__ bool IsFinite(double x) { return fabs(x) <= std::numeric_limits<double>::max(); }

__device__ void Gradient(float* scores, int64_t cols, double lse, float scale, int64_t label) {
  const bool finite = IsFinite(lse);
  // What rounding of lse lost goes into the factor.
  const float shift = static_cast<float>(lse);
  const float factor = static_cast<float>(scale * exp(shift - lse));
  for (int64_t j = threadIdx.x; j < cols; j += kThreads) {
    float x = finite ? expf(scores[j] - shift) * factor : NotANumber();
    if (j == label) x -= scale;
    scores[j] = x;
  }
}
__device__ void Clear(float* scores, int64_t cols) {
  for (int64_t j = threadIdx.x; j < cols; j += kThreads) scores[j] = 0;
}

__global__ void __launch_bounds__(kThreads)
    CrossEntropyRow(ScoreRows rows, float scale, double* losses) {
  __shared__ Shared shared;
  float* scores = rows.scores + blockIdx.x * rows.stride;
  const int64_t label = rows.labels[blockIdx.x];
  if (label < 0) {
    Clear(scores, rows.cols);
    if (threadIdx.x == 0) losses[blockIdx.x] = 0;
    return;
  }
  const LogSumExp sum = Added({-Infinite(), 0}, scores, rows.cols, shared);
  const double lse = ValueOf(sum);
  if (threadIdx.x == 0) {
    losses[blockIdx.x] =
        IsFinite(lse) ? lse - static_cast<double>(scores[label]) : double{NotANumber()};
  }
  __syncthreads();  // before the scores change
  Gradient(scores, rows.cols, lse, scale, label);
}

__global__ void __launch_bounds__(kThreads)
    BeginRows(int64_t rows, LogSumExp* sums, double* label_scores) {
  const int64_t r = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (r >= rows) return;
  sums[r] = {-Infinite(), 0};
  label_scores[r] = 0;
}

__global__ void __launch_bounds__(kThreads)
    AddRow(ScoreRows rows, LogSumExp* sums, double* label_scores) {
  __shared__ Shared shared;
  const float* scores = rows.scores + blockIdx.x * rows.stride;
  const int64_t label = rows.labels[blockIdx.x], at = label - rows.first_class;
  if (label < 0) return;
  const LogSumExp sum = Added(sums[blockIdx.x], scores, rows.cols, shared);
  __syncthreads();  // all have read the old one
  if (threadIdx.x != 0) return;
  sums[blockIdx.x] = sum;
  if (at >= 0 && at < rows.cols) label_scores[blockIdx.x] = scores[at];
}

__global__ void __launch_bounds__(kThreads)
    FinishRows(ScoreRows rows, const LogSumExp* sums, const double* label_scores, double* lse,
               double* losses) {
  const int64_t r = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (r >= rows.rows) return;
  const bool counts = rows.labels[r] >= 0;
  lse[r] = counts ? ValueOf(sums[r]) : 0;
  losses[r] = counts ? lse[r] - label_scores[r] : 0;
}

__global__ void __launch_bounds__(kThreads)
    GradientRow(ScoreRows rows, const double* lse, float scale) {
  float* scores = rows.scores + blockIdx.x * rows.stride;
  const int64_t label = rows.labels[blockIdx.x];
  if (label < 0) {
    Clear(scores, rows.cols);
  } else {
    Gradient(scores, rows.cols, lse[blockIdx.x], scale, label - rows.first_class);
  }
}

int64_t BlocksOf(int64_t rows) { return (rows + kThreads - 1) / kThreads; }

}  // namespace

void CrossEntropyInPlace(const ScoreRows& rows, float scale, double* losses, Stream stream) {
  Launch(CrossEntropyRow, rows.rows, kThreads, stream, rows, scale, losses);
}
void BeginScores(int64_t rows, LogSumExp* sums, double* label_scores, Stream stream) {
  Launch(BeginRows, BlocksOf(rows), kThreads, stream, rows, sums, label_scores);
}
void AddScores(const ScoreRows& rows, LogSumExp* sums, double* label_scores, Stream stream) {
  Launch(AddRow, rows.rows, kThreads, stream, rows, sums, label_scores);
}
void FinishScores(const ScoreRows& rows, const LogSumExp* sums, const double* label_scores,
                  double* lse, double* losses, Stream stream) {
  Launch(FinishRows, BlocksOf(rows.rows), kThreads, stream, rows, sums, label_scores, lse, losses);
}
void SoftmaxGradient(const ScoreRows& rows, const double* lse, float scale, Stream stream) {
  Launch(GradientRow, rows.rows, kThreads, stream, rows, lse, scale);
}

}  // namespace tw::kernels::device
