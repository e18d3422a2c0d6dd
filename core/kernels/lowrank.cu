#include "core/kernels/lowrank_device.h"
#include "core/kernels/random.h"
#include "core/kernels/sums.cuh"

namespace tw::kernels::device {
namespace {

constexpr int kFactors = 4;  // of the rank, formed together

// A launch has kSpread thread blocks a matrix, which share its rows or columns evenly: there are
// few matrices, and tiles of elements would cut rows.
constexpr int64_t kSpread = 64;

// A warp a row.
__global__ void __launch_bounds__(kThreads) TimesQ(const LowRankSegment* segments) {
  const LowRankSegment s = segments[blockIdx.x / kSpread];
  const int64_t rank = s.shape.rank, cols = s.shape.cols;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int64_t first = (blockIdx.x % kSpread) * kWarps + threadIdx.x / kWarp;
  for (int64_t row = first; row < s.shape.rows; row += kSpread * kWarps) {
    const MessageSpan message{s.m + row * cols, s.addend ? s.addend + row * cols : nullptr,
                              s.scale};
    if (s.addend) {
      for (int64_t j = lane; j < cols; j += kWarp) message.buffer[j] = MessageAt(message, j);
    }
    for (int64_t k = 0; k < rank; k += kFactors) {
      float sum[kFactors] = {};
      for (int64_t j = lane; j < cols; j += kWarp) {  // a lane reads what it wrote
        const float x = message.buffer[j];
        for (int f = 0; f < kFactors && k + f < rank; ++f) sum[f] += x * s.qt[(k + f) * cols + j];
      }
      for (int f = 0; f < kFactors; ++f) {
        const float total = SumAcrossWarp(sum[f]);
        if (lane == 0 && k + f < rank) s.p[row * rank + k + f] = total;
      }
    }
  }
}

// partial[slab][k][j] = sum over the slab's rows of p[i][k] m[i][j]
__global__ void __launch_bounds__(kThreads) TransposeSlabs(const LowRankSegment* segments) {
  const LowRankSegment s = segments[blockIdx.x / kSpread];
  const int64_t rank = s.shape.rank, cols = s.shape.cols, rows = s.shape.rows;
  const int64_t groups = (rank + kFactors - 1) / kFactors;
  const int64_t slabs = (rows + kSlabRows - 1) / kSlabRows;
  const int64_t first = (blockIdx.x % kSpread) * kThreads + threadIdx.x;
  for (int64_t at = first; at < slabs * groups * cols; at += kSpread * kThreads) {
    const int64_t j = at % cols, k = at / cols % groups * kFactors, slab = at / cols / groups;
    const int64_t end = (slab + 1) * kSlabRows < rows ? (slab + 1) * kSlabRows : rows;
    float sum[kFactors] = {};
    for (int64_t i = slab * kSlabRows; i < end; ++i) {
      const float x = s.m[i * cols + j];
      for (int f = 0; f < kFactors && k + f < rank; ++f) sum[f] += s.p[i * rank + k + f] * x;
    }
    for (int f = 0; f < kFactors && k + f < rank; ++f) {
      s.partial[(slab * rank + k + f) * cols + j] = sum[f];
    }
  }
}
__global__ void __launch_bounds__(kThreads) AddSlabs(const LowRankSegment* segments) {
  const LowRankSegment s = segments[blockIdx.x / kSpread];
  const int64_t numel = s.shape.rank * s.shape.cols;
  const int64_t slabs = (s.shape.rows + kSlabRows - 1) / kSlabRows;
  const int64_t first = (blockIdx.x % kSpread) * kThreads + threadIdx.x;
  for (int64_t at = first; at < numel; at += kSpread * kThreads) {
    float sum = 0.0f;
    for (int64_t slab = 0; slab < slabs; ++slab) sum += s.partial[slab * numel + at];
    s.qt[at] = sum;
  }
}

__device__ float OuterAt(const LowRankSegment& s, int64_t at) {
  const int64_t cols = s.shape.cols, i = at / cols, j = at % cols;
  float value = 0.0f;
  for (int64_t k = 0; k < s.shape.rank; ++k) {
    value = value + s.p[i * s.shape.rank + k] * s.qt[k * cols + j];
  }
  return value;
}
struct Residual {
  __device__ void operator()(const LowRankSegment& s, int64_t at) const {
    s.m[at] = s.m[at] - OuterAt(s, at);
  }
};
struct Add {
  __device__ void operator()(const LowRankSegment& s, int64_t at) const {
    s.m[at] = s.m[at] + s.scale * OuterAt(s, at);
  }
};

// Sum of a[i] b[i] in sixteen lanes by the first warp, for all threads.
__device__ double Dot(const double* a, const double* b, int64_t n, double* shared) {
  if (threadIdx.x < kWarp) {
    const double sum = SumOfPiece(0, n, [&](int64_t i) { return a[i] * b[i]; });
    if (threadIdx.x == 0) *shared = sum;
  }
  __syncthreads();
  const double sum = *shared;
  __syncthreads();
  return sum;
}

// orthonormalize.cc, step by step.
__global__ void __launch_bounds__(kThreads) OrthonormalizeMatrix(const LowRankSegment* segments) {
  constexpr double kDependent = 1e-6;
  __shared__ double shared;
  const LowRankSegment s = segments[blockIdx.x];
  const int64_t rows = s.shape.rows, rank = s.shape.rank;
  for (int64_t at = threadIdx.x; at < rows * rank; at += kThreads) {
    s.columns[at % rank * rows + at / rank] = s.p[at];
  }
  __syncthreads();
  for (int64_t k = 0; k < rank; ++k) {
    double* column = s.columns + k * rows;
    const double before = std::sqrt(Dot(column, column, rows, &shared));
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t j = 0; j < k; ++j) {
        const double* basis = s.columns + j * rows;
        const double along = Dot(basis, column, rows, &shared);
        for (int64_t i = threadIdx.x; i < rows; i += kThreads) column[i] -= along * basis[i];
        __syncthreads();
      }
    }
    const double after = std::sqrt(Dot(column, column, rows, &shared));
    const bool keep = after > kDependent * before && after - after == 0;
    for (int64_t i = threadIdx.x; i < rows; i += kThreads) column[i] = keep ? column[i] / after : 0;
    __syncthreads();
  }
  for (int64_t at = threadIdx.x; at < rows * rank; at += kThreads) {
    s.p[at] = static_cast<float>(s.columns[at % rank * rows + at / rank]);
  }
}

__device__ double LengthOf(const float* x, int64_t n, double* shared) {
  if (threadIdx.x < kWarp) {
    const double sum =
        SumOfPiece(0, n, [&](int64_t j) { return static_cast<double>(x[j]) * x[j]; });
    if (threadIdx.x == 0) *shared = std::sqrt(sum);
  }
  __syncthreads();
  const double length = *shared;
  __syncthreads();
  return length;
}

__global__ void __launch_bounds__(kThreads) UnitRow(const UnitRowsSegment* segments, int count) {
  __shared__ double shared;
  const UnitRowsSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const int64_t begin = (blockIdx.x - s.first_tile) * s.cols;
  const float* from = s.from ? s.from + begin : nullptr;
  float* to = s.to + begin;
  double length = from ? LengthOf(from, s.cols, &shared) : 0.0;
  if (!(length > 0.0)) {
    for (int64_t j = threadIdx.x; j < s.cols; j += kThreads) {
      to[j] = CentredUniform(ElementBits(s.key, static_cast<uint64_t>(begin + j)));
    }
    __syncthreads();
    from = to;
    length = LengthOf(to, s.cols, &shared);
  }
  for (int64_t j = threadIdx.x; j < s.cols; j += kThreads) {
    to[j] = static_cast<float>(from[j] / length);
  }
}

struct Draw {
  __device__ void operator()(const DrawSegment& s, int64_t i) const {
    s.out[i] = CentredUniform(ElementBits(s.key, s.first + static_cast<uint64_t>(i)));
  }
};
struct Transpose {
  __device__ void operator()(const TransposeSegment& s, int64_t at) const {
    const int64_t rows = s.numel / s.cols;
    s.to[at % s.cols * rows + at / s.cols] = s.factor * s.from[at];
  }
};

}  // namespace

void MaterializeTimesQ(Table<LowRankSegment> table, Stream stream) {
  Launch(TimesQ, table.count * kSpread, kThreads, stream, table.segments);
}
void TransposeTimesM(Table<LowRankSegment> table, Stream stream) {
  Launch(TransposeSlabs, table.count * kSpread, kThreads, stream, table.segments);
  Launch(AddSlabs, table.count * kSpread, kThreads, stream, table.segments);
}
void OuterResidual(Table<LowRankSegment> table, Stream stream) {
  LaunchForEach(table, stream, Residual());
}
void OuterAdd(Table<LowRankSegment> table, Stream stream) { LaunchForEach(table, stream, Add()); }
void Orthonormalize(Table<LowRankSegment> table, Stream stream) {
  Launch(OrthonormalizeMatrix, table.count, kThreads, stream, table.segments);
}

int64_t PlaceUnitRows(std::span<UnitRowsSegment> segments) {
  int64_t tiles = 0;
  for (UnitRowsSegment& segment : segments) {
    segment.first_tile = tiles;
    if (segment.numel > 0) tiles += segment.numel / segment.cols;
  }
  return tiles;
}
void UnitRows(Table<UnitRowsSegment> table, Stream stream) {
  Launch(UnitRow, table.tiles, kThreads, stream, table.segments, table.count);
}
void DrawUniform(Table<DrawSegment> table, Stream stream) { LaunchForEach(table, stream, Draw()); }
void TransposeScaled(Table<TransposeSegment> table, Stream stream) {
  LaunchForEach(table, stream, Transpose());
}

}  // namespace tw::kernels::device
