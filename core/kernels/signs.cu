#include "core/kernels/signs_device.h"
#include "core/kernels/sums.cuh"
#include "core/kernels/vectors.cuh"

namespace tw::kernels::device {
namespace {

__device__ void AddTo(SignSums& sums, const SignSums& more) {
  sums.positive += more.positive;
  sums.negative += more.negative;
  sums.num_negative += more.num_negative;
}

// The lower n bytes of a word.
__device__ void StoreBits(uint8_t* to, uint32_t bits, int64_t n) {
  if (n >= 4) return StoreAny(to, bits);
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<uint8_t>(bits >> (8 * i));
}

// A warp a piece of 1024 elements, rows of 32, kRows of them under way. Element i counts in lane
// i % 16 of two sums, of which the warp's lower half forms the positive and the upper the negative
// one; each needs an element of either half of a row. The bits of a row are kept by the lane of its
// number, so that those of kRows rows are stored at once.
__global__ void __launch_bounds__(kPieceThreads)
    PackPieces(const SignSegment* segments, int count, SignSums* scratch) {
  constexpr int kRows = 8;
  __shared__ SignSums of_pieces[kPiecesPerTile];
  const SignSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const TileRange tile = RangeOf(segment, blockIdx.x);
  const int64_t begin = tile.begin + warp * kPiece;
  const int64_t end = begin + kPiece < tile.end ? begin + kPiece : tile.end;
  const bool lower = lane < kPieceLanes;
  double sum = 0;
  size_t num_negative = 0;
  for (int64_t at = begin; at < end; at += kRows * kWarp) {
    float x[kRows];
    for (int row = 0; row < kRows; ++row) {
      const int64_t i = at + row * kWarp + lane;
      x[row] = i < end ? segment.buffer[i] : 0.0f;
    }
    if (segment.addend) {
      float addend[kRows];
      for (int row = 0; row < kRows; ++row) {
        const int64_t i = at + row * kWarp + lane;
        addend[row] = i < end ? segment.addend[i] : 0.0f;
      }
      for (int row = 0; row < kRows; ++row) {
        const int64_t i = at + row * kWarp + lane;
        x[row] += segment.scale * addend[row];
        if (i < end) segment.buffer[i] = x[row];
      }
    }
    uint32_t mine = 0;
    for (int row = 0; row < kRows; ++row) {
      const uint32_t bits = __ballot_sync(kWholeWarp, x[row] < 0);
      if (lane == row) mine = bits;
      num_negative += static_cast<size_t>(__popc(bits));
      const float other = __shfl_xor_sync(kWholeWarp, x[row], kPieceLanes);
      for (const float value : {lower ? x[row] : other, lower ? other : x[row]}) {
        sum += (lower ? value > 0 : value < 0) ? fabs(static_cast<double>(value)) : 0.0;
      }
    }
    const int64_t first = at + lane * kWarp;  // of the row whose bits this lane has
    if (lane < kRows) StoreBits(segment.bits + first / 8, mine, (end - first + 7) / 8);
  }
  for (int half = kPieceLanes / 2; half > 0; half /= 2) {
    sum += __shfl_down_sync(kWholeWarp, sum, half);
  }
  const double negative = __shfl_sync(kWholeWarp, sum, kPieceLanes);
  if (lane == 0) of_pieces[warp] = {sum, negative, num_negative};
  __syncthreads();
  if (threadIdx.x != 0) return;
  SignSums total = of_pieces[0];
  for (int p = 1; p < kPiecesPerTile; ++p) AddTo(total, of_pieces[p]);
  scratch[blockIdx.x] = total;
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
  const SignSums* of_tiles = scratch + segment.first_tile;
  SignSums sum{0, 0, 0};
  for (int64_t t = lane; t < (segment.numel + kTile - 1) / kTile; t += kThreads) {
    AddTo(sum, of_tiles[t]);
  }
  lanes[lane] = sum;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (lane < half) AddTo(lanes[lane], lanes[lane + half]);
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

// Subtracts the pair by the signs that are there, or adds it by those of the bits.
template <bool kAdd>
__global__ void __launch_bounds__(kThreads)
    ApplyPair(const SignSegment* segments, int count, SignMeans means) {
  constexpr int kFours = kTile / kThreads / 4;
  const SignSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const TileRange tile = RangeOf(segment, blockIdx.x);
  Pair pair = PairOf(segment, means);
  if (kAdd) pair = {segment.scale * pair.plus, segment.scale * pair.minus};
  const auto apply = [&](float x, unsigned negative) {
    return kAdd ? x + (negative ? pair.minus : pair.plus) : x - (x < 0 ? pair.minus : pair.plus);
  };
  if (tile.end - tile.begin < kTile || !IsAligned(segment.buffer)) {
    for (int64_t i = tile.begin + threadIdx.x; i < tile.end; i += kThreads) {
      const unsigned negative = kAdd ? segment.bits[i / 8] >> (i % 8) & 1u : 0u;
      segment.buffer[i] = apply(segment.buffer[i], negative);
    }
    return;
  }
  Four four[kFours];
  unsigned bits[kFours];
  for (int f = 0; f < kFours; ++f) {
    const int64_t at = tile.begin + (f * kThreads + static_cast<int>(threadIdx.x)) * 4;
    four[f] = FourAt(segment.buffer + at);
    bits[f] = kAdd ? unsigned{segment.bits[at / 8]} >> (at % 8) : 0u;
  }
  for (int f = 0; f < kFours; ++f) {
    const int64_t at = tile.begin + (f * kThreads + static_cast<int>(threadIdx.x)) * 4;
    for (int k = 0; k < 4; ++k) four[f].x[k] = apply(four[f].x[k], bits[f] >> k & 1u);
    PutFour(segment.buffer + at, four[f]);
  }
}

}  // namespace

void PackSigns(Table<SignSegment> table, SignMeans means, void* scratch, Stream stream) {
  auto* sums = static_cast<SignSums*>(scratch);
  Launch(PackPieces, table.tiles, kPieceThreads, stream, table.segments, table.count, sums);
  Launch(StoreMeans, table.count, kThreads, stream, table.segments, sums, means);
}
void SubtractBySign(Table<SignSegment> table, SignMeans means, Stream stream) {
  Launch(ApplyPair<false>, table.tiles, kThreads, stream, table.segments, table.count, means);
}
void AddBySign(Table<SignSegment> table, SignMeans means, Stream stream) {
  Launch(ApplyPair<true>, table.tiles, kThreads, stream, table.segments, table.count, means);
}

}  // namespace tw::kernels::device
