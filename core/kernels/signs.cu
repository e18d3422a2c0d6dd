#include "core/kernels/signs_device.h"
#include "core/kernels/sums.cuh"

namespace tw::kernels::device {
namespace {

constexpr int kPiecesPerTile = kTile / kPiece;
constexpr int kPieceThreads = kPiecesPerTile * kWarp;

// The lower n bytes of a word.
__device__ void StoreBits(uint8_t* to, uint32_t bits, int64_t n) {
  if (n >= 4) return StoreAny(to, bits);
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<uint8_t>(bits >> (8 * i));
}

// A warp a piece of 1024 elements, 32 at a time. Element i is in lane i % 32 and counts in lane
// i % 16 of the sum, so the lower half adds its own first and then that of sixteen lanes above.
__global__ void __launch_bounds__(kPieceThreads)
    PackPieces(const SignSegment* segments, int count, SignSums* scratch) {
  const SignSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const TileRange tile = RangeOf(segment, blockIdx.x);
  const int64_t begin = tile.begin + warp * kPiece;
  const int64_t end = begin + kPiece < tile.end ? begin + kPiece : tile.end;
  const MessageSpan message{segment.buffer, segment.addend, segment.scale};
  double positive = 0, negative = 0;
  size_t num_negative = 0;
  for (int64_t at = begin; at < end; at += kWarp) {
    const int64_t i = at + lane;
    float x = 0.0f;
    if (i < end) {
      x = MessageAt(message, i);
      if (segment.addend) segment.buffer[i] = x;
    }
    const uint32_t bits = __ballot_sync(kWholeWarp, x < 0);
    const float above = __shfl_down_sync(kWholeWarp, x, kWarp / 2);
    if (lane < kWarp / 2) {
      positive += x > 0 ? static_cast<double>(x) : 0.0;
      negative += x < 0 ? -static_cast<double>(x) : 0.0;
      positive += above > 0 ? static_cast<double>(above) : 0.0;
      negative += above < 0 ? -static_cast<double>(above) : 0.0;
    }
    if (lane == 0) StoreBits(segment.bits + at / 8, bits, (end - at + 7) / 8);
    num_negative += static_cast<size_t>(__popc(bits));
  }
  for (int half = kPieceLanes / 2; half > 0; half /= 2) {
    positive += __shfl_down_sync(kWholeWarp, positive, half);
    negative += __shfl_down_sync(kWholeWarp, negative, half);
  }
  if (lane == 0) {
    scratch[int64_t{blockIdx.x} * kPiecesPerTile + warp] = {positive, negative, num_negative};
  }
}

__device__ float MeanOf(double sum, int64_t count) {
  return count ? static_cast<float>(sum / static_cast<double>(count)) : 0.0f;
}

__global__ void __launch_bounds__(kThreads)
    StoreMeans(const SignSegment* segments, const SignSums* scratch, SignMeans means) {
  __shared__ SignSums lanes[kThreads];
  const SignSegment segment = segments[blockIdx.x];
  if (segment.numel == 0) return;
  const int lane = static_cast<int>(threadIdx.x);
  const SignSums* pieces = scratch + segment.first_tile * kPiecesPerTile;
  SignSums sum{0, 0, 0};
  for (int64_t p = lane; p < (segment.numel + kPiece - 1) / kPiece; p += kThreads) {
    sum.positive += pieces[p].positive;
    sum.negative += pieces[p].negative;
    sum.num_negative += pieces[p].num_negative;
  }
  lanes[lane] = sum;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (lane < half) {
      lanes[lane].positive += lanes[lane + half].positive;
      lanes[lane].negative += lanes[lane + half].negative;
      lanes[lane].num_negative += lanes[lane + half].num_negative;
    }
    __syncthreads();
  }
  if (lane != 0) return;
  sum = lanes[0];
  const auto num_negative = static_cast<int64_t>(sum.num_negative);
  if (means == SignMeans::kOne) {
    StoreAny(segment.means, MeanOf(sum.positive + sum.negative, segment.numel));
  } else {
    StoreAny(segment.means, MeanOf(sum.positive, segment.numel - num_negative));
    StoreAny(segment.means + sizeof(float), -MeanOf(sum.negative, num_negative));
  }
}

struct Pair {
  float plus, minus;
};
__device__ Pair PairOf(const SignSegment& segment, SignMeans means) {
  const float plus = LoadAny<float>(segment.means);
  return {plus, means == SignMeans::kOne ? -plus : LoadAny<float>(segment.means + sizeof(float))};
}

struct Subtract {
  SignMeans means;
  __device__ void operator()(const SignSegment& segment, int64_t i) const {
    const Pair pair = PairOf(segment, means);
    float& x = segment.buffer[i];
    x -= x < 0 ? pair.minus : pair.plus;
  }
};
struct Add {
  SignMeans means;
  __device__ void operator()(const SignSegment& segment, int64_t i) const {
    const Pair pair = PairOf(segment, means);
    const bool is_negative = segment.bits[i / 8] >> (i % 8) & 1;
    segment.buffer[i] += segment.scale * (is_negative ? pair.minus : pair.plus);
  }
};

}  // namespace

void PackSigns(Table<SignSegment> table, SignMeans means, void* scratch, Stream stream) {
  auto* sums = static_cast<SignSums*>(scratch);
  Launch(PackPieces, table.tiles, kPieceThreads, stream, table.segments, table.count, sums);
  Launch(StoreMeans, table.count, kThreads, stream, table.segments, sums, means);
}
void SubtractBySign(Table<SignSegment> table, SignMeans means, Stream stream) {
  LaunchForEach(table, stream, Subtract{means});
}
void AddBySign(Table<SignSegment> table, SignMeans means, Stream stream) {
  LaunchForEach(table, stream, Add{means});
}

}  // namespace tw::kernels::device
