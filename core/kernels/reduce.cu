#include "core/kernels/reduce_device.h"

#include <cmath>

#include "core/kernels/float16.h"
#include "core/kernels/sums.cuh"

namespace tw::kernels::device {
namespace {

struct Square {
  __device__ double operator()(float x) const { return static_cast<double>(x) * x; }
};
struct Magnitude {
  __device__ double operator()(float x) const { return fabs(static_cast<double>(x)); }
};

// work(at), where at(i) is number i of a segment.
template <class Work>
__device__ void WithNumbers(const ReduceSegment& segment, Work work) {
  const auto* narrow = static_cast<const uint16_t*>(segment.x);
  const auto* wide = static_cast<const float*>(segment.x);
  if (segment.dtype == DType::kF16) {
    work([&](int64_t i) { return HalfToFloat(narrow[i]); });
  } else if (segment.dtype == DType::kBF16) {
    work([&](int64_t i) { return Bf16ToFloat(narrow[i]); });
  } else {
    work([&](int64_t i) { return wide[i]; });
  }
}

// A warp a piece.
template <class Term>
__global__ void __launch_bounds__(kPieceThreads)
    SumTiles(const ReduceSegment* segments, int count, double* scratch, Term term) {
  __shared__ double of_pieces[kPiecesPerTile];
  const ReduceSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const int warp = threadIdx.x / kWarp;
  const TileRange tile = RangeOf(segment, blockIdx.x);
  const int64_t begin = tile.begin + warp * kPiece;
  const int64_t end = begin + kPiece < tile.end ? begin + kPiece : tile.end;
  double sum = 0;
  WithNumbers(segment, [&](auto at) {
    sum = SumOfPiece(begin, end, [&](int64_t i) { return term(at(i)); });
  });
  if (threadIdx.x % kWarp == 0) of_pieces[warp] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int p = 1; p < kPiecesPerTile; ++p) sum += of_pieces[p];
  scratch[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    SumSegments(const ReduceSegment* segments, const double* scratch, double* out) {
  __shared__ double lanes[kThreads];
  const ReduceSegment segment = segments[blockIdx.x];
  const double sum =
      SumOfParts(scratch + segment.first_tile, (segment.numel + kTile - 1) / kTile, lanes);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

template <class Term>
void Sum(const Table<ReduceSegment>& table, double* scratch, double* out, Stream stream,
         Term term) {
  Launch(SumTiles<Term>, table.tiles, kPieceThreads, stream, table.segments, table.count, scratch,
         term);
  Launch(SumSegments, table.count, kThreads, stream, table.segments, scratch, out);
}

// look(bits) for the numbers of a tile, widened, without their signs; those of a thread are read
// together.
template <class At, class Look>
__device__ void ForMagnitudes(const TileRange& tile, At at, Look look) {
  constexpr int kEach = kTile / kThreads;
  float x[kEach];
  for (int k = 0; k < kEach; ++k) {
    const int64_t i = tile.begin + k * kThreads + threadIdx.x;
    x[k] = i < tile.end ? at(i) : 0.0f;
  }
  for (int k = 0; k < kEach; ++k) look(__float_as_uint(x[k]) & 0x7FFFFFFFu);
}

__global__ void __launch_bounds__(kThreads)
    MarkNotFinite(const ReduceSegment* segments, int count, uint32_t* not_finite) {
  const ReduceSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const TileRange tile = RangeOf(segment, blockIdx.x);
  bool found = false;
  WithNumbers(segment, [&](auto at) {
    ForMagnitudes(tile, at, [&](uint32_t bits) { found |= bits >= 0x7F800000u; });
  });
  if (__any_sync(kWholeWarp, found) && threadIdx.x % kWarp == 0) atomicOr(not_finite, 1u);
}

// Magnitudes of finite numbers are in the order of their bits.
__global__ void __launch_bounds__(kThreads)
    RaiseLargest(const ReduceSegment* segments, int count, uint32_t* out) {
  const int index = SegmentOf(segments, count, blockIdx.x);
  const ReduceSegment segment = segments[index];
  const TileRange tile = RangeOf(segment, blockIdx.x);
  const auto* x = static_cast<const float*>(segment.x);
  uint32_t most = 0;
  ForMagnitudes(
      tile, [&](int64_t i) { return x[i]; },
      [&](uint32_t bits) { most = most < bits ? bits : most; });
  most = MaxAcrossWarp(most);
  if (threadIdx.x % kWarp == 0) atomicMax(out + index, most);
}

}  // namespace

void FindNotFinite(Table<ReduceSegment> table, uint32_t* not_finite, Stream stream) {
  cudaMemsetAsync(not_finite, 0, sizeof(uint32_t), CudaStream(stream));
  NoteNotFinite(table, not_finite, stream);
}
void NoteNotFinite(Table<ReduceSegment> table, uint32_t* not_finite, Stream stream) {
  Launch(MarkNotFinite, table.tiles, kThreads, stream, table.segments, table.count, not_finite);
}

void SumOfSquares(Table<ReduceSegment> table, double* scratch, double* out, Stream stream) {
  Sum(table, scratch, out, stream, Square());
}
void SumAbs(Table<ReduceSegment> table, double* scratch, double* out, Stream stream) {
  Sum(table, scratch, out, stream, Magnitude());
}

void LargestMagnitude(Table<ReduceSegment> table, float* out, Stream stream) {
  const auto bytes = static_cast<size_t>(table.count) * sizeof(float);
  cudaMemsetAsync(out, 0, bytes, CudaStream(stream));
  Launch(RaiseLargest, table.tiles, kThreads, stream, table.segments, table.count,
         reinterpret_cast<uint32_t*>(out));
}

}  // namespace tw::kernels::device
