#include "core/kernels/quantize_groups.cuh"

namespace tw::kernels::device {
namespace {

constexpr int kTilePieces = kQuantizeTile / kPiece;
constexpr int kStretchThreads = kTilePieces * kWarp;
constexpr int kStretchGroups = kQuantizeTile / kStretchThreads / kGroup;
static_assert(kStretchThreads * kStretchGroups * kGroup == kQuantizeTile);

// The stretch of a block that a thread block has, where a block has several tiles.
struct Stretch {
  Block block;
  int64_t tile;        // in the block
  int64_t begin, end;  // elements of the block
};
template <class Segment>
__device__ Stretch StretchAt(const QuantizeSpec& spec, const Segment& segment, int64_t tile) {
  const int64_t full = BlockElements(spec, segment.numel);
  const int64_t per_block = (full + kQuantizeTile - 1) / kQuantizeTile;
  const int64_t index = (tile - segment.first_tile) / per_block;
  Stretch out;
  out.block = BlockAt(spec, segment.numel, index);
  out.tile = tile - segment.first_tile - index * per_block;
  out.begin = out.tile * kQuantizeTile;
  out.end =
      out.begin + kQuantizeTile < out.block.numel ? out.begin + kQuantizeTile : out.block.numel;
  return out;
}
__device__ Share ShareOf(const Stretch& stretch) {
  return {static_cast<int>(threadIdx.x), kStretchThreads,
          static_cast<int>(stretch.end - stretch.begin)};
}

// How thread blocks go over blocks: 2^shift lanes a block, `per_tile` blocks a thread block.
struct BlockGrid {
  int shift, per_tile;
};
// work(block, lane, lanes) for those of a tile; a warp comes as a whole, its blocks may be none.
template <class Segment, class Work>
__device__ void ForBlocks(const Segment& segment, const QuantizeSpec& spec, const BlockGrid& grid,
                          Work work) {
  const int lanes = 1 << grid.shift, lane_of_warp = threadIdx.x % kWarp;
  const int64_t first = (blockIdx.x - segment.first_tile) * grid.per_tile;
  for (int of_warp = static_cast<int>(threadIdx.x) / kWarp << (5 - grid.shift);
       of_warp < grid.per_tile; of_warp += kThreads >> grid.shift) {
    if ((first + of_warp) * spec.block >= segment.numel) return;
    const int64_t index = first + of_warp + (lane_of_warp >> grid.shift);
    work(BlockAt(spec, segment.numel, index), lane_of_warp & (lanes - 1), lanes);
  }
}
__device__ Share ShareOf(const Block& block, int lane, int lanes) {
  return {lane, lanes, block.numel > 0 ? static_cast<int>(block.numel) : 0};
}

template <class Coder, int kGroups>
__global__ void __launch_bounds__(kThreads, kGroups == 1   ? 4
                                            : kGroups == 2 ? 3
                                                           : 2)
    QuantizeBlocks(const QuantizeSegment* segments, int count, QuantizeSpec spec, BlockGrid grid) {
  __shared__ float rows[kWarps][kWarp * kGroup];
  const QuantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  ForBlocks(segment, spec, grid, [&](const Block& block, int lane, int lanes) {
    const Share share = ShareOf(block, lane, lanes);
    const float* addend = segment.addend ? segment.addend + block.begin : nullptr;
    float x[kGroups][kGroup];
    LoadMessage({segment.buffer + block.begin, addend, segment.scale}, share, x);
    float scale;
    if (spec.scale == ScaleRule::kMaxAbs) {
      scale = LargestOf(x);
      for (int distance = lanes / 2; distance > 0; distance /= 2) {
        scale = fmaxf(scale, __shfl_xor_sync(kWholeWarp, scale, distance));
      }
    } else {
      const double sum = SumOfWarp(x, spec.scale, rows[threadIdx.x / kWarp]);
      scale = quantize::ScaleFromSum(sum, block.numel, spec.scale);
    }
    if (share.numel == 0) return;
    if (lane == 0) StoreAny(segment.body + block.body, scale);
    EncodeShare<Coder>(segment, spec, block, 0, quantize::ScaleOfBlock(scale, spec.levels), share,
                       x);
  });
}

template <class Coder>
__global__ void __launch_bounds__(kThreads)
    DequantizeBlocks(const DequantizeSegment* segments, int count, QuantizeSpec spec,
                     BlockGrid grid) {
  const DequantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  ForBlocks(segment, spec, grid, [&](const Block& block, int lane, int lanes) {
    if (block.numel > 0) DecodeShare<Coder>(segment, spec, block, 0, ShareOf(block, lane, lanes));
  });
}

// Blocks of trits.
__global__ void __launch_bounds__(kThreads)
    QuantizeTrits(const QuantizeSegment* segments, int count, QuantizeSpec spec, BlockGrid grid) {
  const QuantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const MessageSpan message{segment.buffer, segment.addend, segment.scale};
  ForBlocks(segment, spec, grid, [&](const Block& block, int lane, int) {
    float* x = segment.buffer + block.begin;
    float scale = 0.0f;
    for (int64_t i = lane; i < block.numel; i += kWarp) {
      const float value = MessageAt(message, block.begin + i);
      if (segment.addend) x[i] = value;
      scale = fmaxf(scale, fabsf(value));
    }
    __syncwarp();
    if (spec.scale == ScaleRule::kMaxAbs) {
      scale = MaxAcrossWarp(scale);
    } else {
      const double sum =
          SumOfPiece(0, block.numel, [&](int64_t i) { return TermOf(x[i], spec.scale); });
      scale = quantize::ScaleFromSum(sum, block.numel, spec.scale);
    }
    if (lane == 0) StoreAny(segment.body + block.body, scale);
    EncodeGroups(segment, spec, block, quantize::ScaleOfBlock(scale, spec.levels), 0, block.numel,
                 lane, kWarp);
  });
}
__global__ void __launch_bounds__(kThreads)
    DequantizeTrits(const DequantizeSegment* segments, int count, QuantizeSpec spec,
                    BlockGrid grid) {
  const DequantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  ForBlocks(segment, spec, grid, [&](const Block& block, int lane, int lanes) {
    DecodeGroups(segment, spec, block, 0, block.numel, lane, lanes);
  });
}

// The additions of a stretch, and the sum of its pieces' sums or their maximum.
__global__ void __launch_bounds__(kStretchThreads)
    MeasureStretches(const QuantizeSegment* segments, int count, QuantizeSpec spec,
                     double* scratch) {
  __shared__ float rows[kTilePieces][kWarp * kGroup];
  __shared__ double of_pieces[kTilePieces];
  const QuantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const Stretch stretch = StretchAt(spec, segment, blockIdx.x);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t begin = stretch.begin + warp * kPiece, left = stretch.end - begin;
  const int64_t numel = left < 0 ? 0 : left < kPiece ? left : kPiece;
  const Share share{lane, kWarp, static_cast<int>(numel)};
  float* buffer = segment.buffer + stretch.block.begin + begin;
  const float* addend = segment.addend ? segment.addend + stretch.block.begin + begin : nullptr;
  float x[kPiece / kWarp / kGroup][kGroup];
  LoadMessage({buffer, addend, segment.scale}, share, x);
  if (addend) StoreGroups(buffer, share, x);
  const bool largest = spec.scale == ScaleRule::kMaxAbs;
  const double measure =
      largest ? MaxAcrossWarp(LargestOf(x)) : SumOfWarp(x, spec.scale, rows[warp]);
  if (lane == 0) of_pieces[warp] = measure;
  __syncthreads();
  if (threadIdx.x != 0) return;
  double total = of_pieces[0];
  for (int p = 1; p < kTilePieces; ++p) {
    total = largest ? fmax(total, of_pieces[p]) : total + of_pieces[p];
  }
  scratch[blockIdx.x] = total;
}

// The scale of a block, into its body: work of the thread block of its first tile; where a message
// is one block, of that of its segment.
__global__ void __launch_bounds__(kThreads) StoreScales(const QuantizeSegment* segments, int count,
                                                        QuantizeSpec spec, const double* scratch) {
  __shared__ double lanes[kThreads];
  const int at =
      spec.block == 0 ? static_cast<int>(blockIdx.x) : SegmentOf(segments, count, blockIdx.x);
  const QuantizeSegment segment = segments[at];
  if (segment.numel == 0) return;
  const int64_t tile = spec.block == 0 ? segment.first_tile : blockIdx.x;
  const Stretch stretch = StretchAt(spec, segment, tile);
  if (stretch.tile != 0) return;
  const int64_t tiles = (stretch.block.numel + kQuantizeTile - 1) / kQuantizeTile;
  const double* measures = scratch + tile;
  float scale = 0.0f;
  if (spec.scale == ScaleRule::kMaxAbs) {
    double most = 0;
    for (int64_t t = threadIdx.x; t < tiles; t += kThreads) most = fmax(most, measures[t]);
    most = MaxAcrossWarp(most);
    if (threadIdx.x % kWarp == 0) lanes[threadIdx.x / kWarp] = most;
    __syncthreads();
    for (int i = 0; i < kWarps; ++i) scale = fmaxf(scale, static_cast<float>(lanes[i]));
  } else {
    const double sum = SumOfParts(measures, tiles, lanes);
    scale = quantize::ScaleFromSum(sum, stretch.block.numel, spec.scale);
  }
  if (threadIdx.x == 0) StoreAny(segment.body + stretch.block.body, scale);
}

template <class Coder>
__global__ void __launch_bounds__(kStretchThreads)
    QuantizeStretches(const QuantizeSegment* segments, int count, QuantizeSpec spec) {
  const QuantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const Stretch stretch = StretchAt(spec, segment, blockIdx.x);
  const Share share = ShareOf(stretch);
  float x[kStretchGroups][kGroup];
  LoadMessage({segment.buffer + stretch.block.begin + stretch.begin, nullptr, 0.0f}, share, x);
  const float scale = LoadAny<float>(segment.body + stretch.block.body);
  EncodeShare<Coder>(segment, spec, stretch.block, stretch.begin,
                     quantize::ScaleOfBlock(scale, spec.levels), share, x);
}
template <class Coder>
__global__ void __launch_bounds__(kStretchThreads)
    DequantizeStretches(const DequantizeSegment* segments, int count, QuantizeSpec spec) {
  const DequantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const Stretch stretch = StretchAt(spec, segment, blockIdx.x);
  DecodeShare<Coder>(segment, spec, stretch.block, stretch.begin, ShareOf(stretch));
}

__global__ void __launch_bounds__(kStretchThreads)
    QuantizeTritStretches(const QuantizeSegment* segments, int count, QuantizeSpec spec) {
  const QuantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const Stretch stretch = StretchAt(spec, segment, blockIdx.x);
  const float scale = LoadAny<float>(segment.body + stretch.block.body);
  EncodeGroups(segment, spec, stretch.block, quantize::ScaleOfBlock(scale, spec.levels),
               stretch.begin, stretch.end, static_cast<int>(threadIdx.x), kStretchThreads);
}
__global__ void __launch_bounds__(kStretchThreads)
    DequantizeTritStretches(const DequantizeSegment* segments, int count, QuantizeSpec spec) {
  const DequantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const Stretch stretch = StretchAt(spec, segment, blockIdx.x);
  DecodeGroups(segment, spec, stretch.block, stretch.begin, stretch.end,
               static_cast<int>(threadIdx.x), kStretchThreads);
}

// work(a Coder for the spec)
template <bool kStochastic, class Work>
void WithBits(const QuantizeSpec& spec, Work work) {
  if (spec.bits == 4) return work(Coder<4, kStochastic>());
  if (spec.bits == 8) return work(Coder<8, kStochastic>());
  work(Coder<0, kStochastic>());
}
template <class Work>
void WithCoder(const QuantizeSpec& spec, Work work) {
  spec.stochastic ? WithBits<true>(spec, work) : WithBits<false>(spec, work);
}

// Trits and sums want whole warps.
BlockGrid GridOf(const QuantizeSpec& spec, bool whole_warps) {
  BlockGrid grid{5, static_cast<int>(BlocksPerTile(spec))};
  while (!whole_warps && grid.shift > 0 && spec.block * 2 <= (kGroup << grid.shift)) --grid.shift;
  return grid;
}

}  // namespace

void Quantize(Table<QuantizeSegment> table, const QuantizeSpec& spec, double* scratch,
              Stream stream) {
  const bool trits = spec.packing == Packing::kTrits;
  if (AWarpABlock(spec)) {
    const BlockGrid grid = GridOf(spec, trits || spec.scale != ScaleRule::kMaxAbs);
    const auto launch = [&](auto kernel) {
      Launch(kernel, table.tiles, kThreads, stream, table.segments, table.count, spec, grid);
    };
    if (trits) return launch(QuantizeTrits);
    return WithCoder(spec, [&]<class Coder>(Coder) {
      constexpr int kOneEach = kWarp * kGroup;
      launch(spec.block <= kOneEach       ? QuantizeBlocks<Coder, 1>
             : spec.block <= 2 * kOneEach ? QuantizeBlocks<Coder, 2>
             : spec.block <= 4 * kOneEach ? QuantizeBlocks<Coder, 4>
                                          : QuantizeBlocks<Coder, 8>);
    });
  }
  Launch(MeasureStretches, table.tiles, kStretchThreads, stream, table.segments, table.count, spec,
         scratch);
  if (table.tiles > 0) {
    Launch(StoreScales, spec.block == 0 ? table.count : table.tiles, kThreads, stream,
           table.segments, table.count, spec, scratch);
  }
  const auto launch = [&](auto kernel) {
    Launch(kernel, table.tiles, kStretchThreads, stream, table.segments, table.count, spec);
  };
  if (trits) return launch(QuantizeTritStretches);
  WithCoder(spec, [&]<class Coder>(Coder) { launch(QuantizeStretches<Coder>); });
}

void DequantizeAdd(Table<DequantizeSegment> table, const QuantizeSpec& spec, Stream stream) {
  const bool trits = spec.packing == Packing::kTrits;
  if (AWarpABlock(spec)) {
    const BlockGrid grid = GridOf(spec, trits);
    const auto launch = [&](auto kernel) {
      Launch(kernel, table.tiles, kThreads, stream, table.segments, table.count, spec, grid);
    };
    if (trits) return launch(DequantizeTrits);
    return WithBits<false>(spec, [&]<class Coder>(Coder) { launch(DequantizeBlocks<Coder>); });
  }
  const auto launch = [&](auto kernel) {
    Launch(kernel, table.tiles, kStretchThreads, stream, table.segments, table.count, spec);
  };
  if (trits) return launch(DequantizeTritStretches);
  WithBits<false>(spec, [&]<class Coder>(Coder) { launch(DequantizeStretches<Coder>); });
}

}  // namespace tw::kernels::device
