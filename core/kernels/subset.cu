#include "core/kernels/launch.cuh"
#include "core/kernels/subset_device.h"

namespace tw::kernels::device {
namespace {

constexpr int64_t kWordBits = 64;
static_assert(kTile / kWordBits <= kThreads);

// Marked elements of every tile.
__global__ void __launch_bounds__(kThreads)
    CountMarked(const MarkedSegment* segments, int count, uint64_t* tiles) {
  __shared__ int sums[kWarps];
  const MarkedSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const TileRange tile = RangeOf(s, blockIdx.x);
  const int64_t word = tile.begin / kWordBits + threadIdx.x;
  int own = 0;
  if (threadIdx.x < kTile / kWordBits && word * kWordBits < tile.end)
    own = __popcll(s.bitmap[word]);
  own = SumAcrossWarp(own);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = own;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kWarps; ++w) own += sums[w];
  tiles[blockIdx.x] = static_cast<uint64_t>(own);
}

// Makes them those of all tiles before in the segment; a warp a segment.
__global__ void __launch_bounds__(kWarp)
    PlaceMarked(const MarkedSegment* segments, uint64_t* tiles) {
  const MarkedSegment s = segments[blockIdx.x];
  const int64_t count = (s.numel + kTile - 1) / kTile;
  const int lane = static_cast<int>(threadIdx.x);
  uint64_t before = 0;
  for (int64_t first = 0; first < count; first += kWarp) {
    const bool inside = first + lane < count;
    const uint64_t own = inside ? tiles[s.first_tile + first + lane] : 0;
    uint64_t sum = own;
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const uint64_t below = __shfl_up_sync(kWholeWarp, sum, static_cast<unsigned>(distance));
      if (lane >= distance) sum += below;
    }
    if (inside) tiles[s.first_tile + first + lane] = before + sum - own;
    before += __shfl_sync(kWholeWarp, sum, kWarp - 1);
  }
}

// op(segment, i, j) for element i, the j-th marked one; j is -1 for what is not marked.
template <class Op>
__global__ void __launch_bounds__(kThreads)
    ForMarked(const MarkedSegment* segments, int count, const uint64_t* tiles, Op op) {
  const MarkedSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const TileRange tile = RangeOf(s, blockIdx.x);
  for (int64_t i = tile.begin + threadIdx.x; i < tile.end; i += kThreads) {
    const int64_t word = i / kWordBits;
    const uint64_t bit = uint64_t{1} << (i % kWordBits);
    int64_t place = -1;
    if (s.bitmap[word] & bit) {
      place = static_cast<int64_t>(tiles[blockIdx.x]);
      for (int64_t w = tile.begin / kWordBits; w < word; ++w) place += __popcll(s.bitmap[w]);
      place += __popcll(s.bitmap[word] & (bit - 1));
    }
    op(s, i, place);
  }
}

struct Take {
  __device__ void operator()(const MarkedSegment& s, int64_t i, int64_t place) const {
    float x = MessageAt({s.buffer, s.addend, s.scale}, i);
    if (place >= 0) {
      StoreAny(s.values + place * 4, x);
      x -= s.decoded_factor * x;
    }
    if (place >= 0 || s.addend) s.buffer[i] = x;
  }
};
struct Add {
  __device__ void operator()(const MarkedSegment& s, int64_t i, int64_t place) const {
    if (place >= 0) s.buffer[i] += s.scale * LoadAny<float>(s.values + place * 4);
  }
};

template <class Op>
void OverMarked(const Table<MarkedSegment>& table, uint64_t* scratch, Stream stream, Op op) {
  if (table.tiles == 0) return;
  Launch(CountMarked, table.tiles, kThreads, stream, table.segments, table.count, scratch);
  Launch(PlaceMarked, table.count, kWarp, stream, table.segments, scratch);
  Launch(ForMarked<Op>, table.tiles, kThreads, stream, table.segments, table.count, scratch, op);
}

}  // namespace

void TakeMarked(Table<MarkedSegment> table, uint64_t* scratch, Stream stream) {
  OverMarked(table, scratch, stream, Take());
}
void AddMarked(Table<MarkedSegment> table, uint64_t* scratch, Stream stream) {
  OverMarked(table, scratch, stream, Add());
}

}  // namespace tw::kernels::device
