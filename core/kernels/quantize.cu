#include "core/kernels/quantize_device.h"
#include "core/kernels/quantize_element.h"
#include "core/kernels/random.h"
#include "core/kernels/sums.cuh"

namespace tw::kernels::device {
namespace {

constexpr int kTilePieces = kQuantizeTile / kPiece;

// A block of a segment; elements and bytes counted from the segment's start.
struct Block {
  int64_t begin = 0;  // of its elements
  int64_t numel = 0;
  int64_t body = 0;  // of its scale, codes 4 bytes further
};
__device__ Block BlockAt(const QuantizeSpec& spec, int64_t numel, int64_t index) {
  const int64_t full = BlockElements(spec, numel);
  Block block;
  block.begin = index * full;
  block.numel = numel - block.begin < full ? numel - block.begin : full;
  block.body = index * (int64_t{sizeof(float)} + quantize::CodeBytes(spec, full));
  return block;
}

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

// Codes that fill whole bytes together: eight of any width, or five trits in one byte.
__device__ int GroupOf(const QuantizeSpec& spec) { return spec.packing == Packing::kTrits ? 5 : 8; }

__device__ void StoreWord(uint8_t* to, uint64_t word, int bytes) {
  if (bytes == 4) return StoreAny(to, static_cast<uint32_t>(word));
  if (bytes == 8) return StoreAny(to, word);
  if (bytes == 2) return StoreAny(to, static_cast<uint16_t>(word));
  for (int i = 0; i < bytes; ++i) to[i] = static_cast<uint8_t>(word >> (8 * i));
}
__device__ uint64_t LoadWord(const uint8_t* from, int bytes) {
  if (bytes == 4) return LoadAny<uint32_t>(from);
  if (bytes == 8) return LoadAny<uint64_t>(from);
  if (bytes == 2) return LoadAny<uint16_t>(from);
  uint64_t word = 0;
  for (int i = 0; i < bytes; ++i) word |= uint64_t{from[i]} << (8 * i);
  return word;
}

// Element i of a block has its addition done; groups of codes from `begin` on, every `stride`th.
__device__ void EncodeGroups(const QuantizeSegment& segment, const QuantizeSpec& spec,
                             const Block& block, const BlockScale& s, int64_t begin, int64_t end,
                             int thread, int threads) {
  const int group = GroupOf(spec);
  const bool trits = spec.packing == Packing::kTrits;
  float* x = segment.buffer + block.begin;
  uint8_t* codes = segment.body + block.body + sizeof(float);
  const uint64_t index = segment.stream.first_index + static_cast<uint64_t>(block.begin);
  for (int64_t at = begin + int64_t{thread} * group; at < end; at += int64_t{threads} * group) {
    const int count = static_cast<int>(end - at < group ? end - at : group);
    uint64_t word = 0;
    int place = 1;  // 3^j
    for (int j = 0; j < count; ++j) {
      const float value = x[at + j];
      float noise = 0.0f;
      if (spec.stochastic) {
        noise =
            CentredUniform(ElementBits(segment.stream.key, index + static_cast<uint64_t>(at + j)));
      }
      const uint8_t code = quantize::CodeOf(value, noise, spec, s);
      x[at + j] = value - quantize::ValueOf(code, spec, s);
      if (trits) {
        word += static_cast<uint64_t>((code - 1) * place);
        place *= 3;
      } else {
        word |= uint64_t{code} << (j * spec.bits);
      }
    }
    StoreWord(codes + quantize::CodeBytes(spec, at), word,
              static_cast<int>(quantize::CodeBytes(spec, count)));
  }
}

__device__ void DecodeGroups(const DequantizeSegment& segment, const QuantizeSpec& spec,
                             const Block& block, int64_t begin, int64_t end, int thread,
                             int threads) {
  const int group = GroupOf(spec);
  const bool trits = spec.packing == Packing::kTrits;
  float* out = segment.out + block.begin;
  const uint8_t* body = segment.body + block.body;
  const BlockScale s = quantize::ScaleOfBlock(LoadAny<float>(body), spec.levels);
  const uint8_t* codes = body + sizeof(float);
  const unsigned mask = (1u << spec.bits) - 1;
  for (int64_t at = begin + int64_t{thread} * group; at < end; at += int64_t{threads} * group) {
    const int count = static_cast<int>(end - at < group ? end - at : group);
    uint64_t word = LoadWord(codes + quantize::CodeBytes(spec, at),
                             static_cast<int>(quantize::CodeBytes(spec, count)));
    auto trits_left = static_cast<unsigned>(word);
    for (int j = 0; j < count; ++j) {
      unsigned code;
      if (trits) {
        code = trits_left % 3 + 1;
        trits_left /= 3;
      } else {
        code = static_cast<unsigned>(word) & mask;
        word >>= spec.bits;
      }
      out[at + j] += segment.scale * quantize::ValueOf(static_cast<uint8_t>(code), spec, s);
    }
  }
}

// Term of the sum that `rule` is made of.
__device__ double TermOf(float x, ScaleRule rule) {
  const double wide = x;
  return rule == ScaleRule::kL2Norm ? wide * wide : fabs(wide);
}

// A warp a block.
__global__ void __launch_bounds__(kThreads)
    QuantizeBlocks(const QuantizeSegment* segments, int count, QuantizeSpec spec) {
  const QuantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t index = (blockIdx.x - segment.first_tile) * kWarps + warp;
  if (index * spec.block >= segment.numel) return;
  const Block block = BlockAt(spec, segment.numel, index);
  const MessageSpan message{segment.buffer, segment.addend, segment.scale};
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
}

__global__ void __launch_bounds__(kThreads)
    DequantizeBlocks(const DequantizeSegment* segments, int count, QuantizeSpec spec) {
  const DequantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t index = (blockIdx.x - segment.first_tile) * kWarps + warp;
  if (index * spec.block >= segment.numel) return;
  const Block block = BlockAt(spec, segment.numel, index);
  DecodeGroups(segment, spec, block, 0, block.numel, lane, kWarp);
}

// The additions of a stretch, and of each of its pieces the sum or maximum.
__global__ void __launch_bounds__(kTilePieces* kWarp)
    MeasurePieces(const QuantizeSegment* segments, int count, QuantizeSpec spec, double* scratch) {
  const QuantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const Stretch stretch = StretchAt(spec, segment, blockIdx.x);
  const MessageSpan message{segment.buffer, segment.addend, segment.scale};
  float* x = segment.buffer + stretch.block.begin;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t begin = stretch.begin + warp * kPiece;
  const int64_t end = begin + kPiece < stretch.end ? begin + kPiece : stretch.end;
  float most = 0.0f;
  for (int64_t i = begin + lane; i < end; i += kWarp) {
    const float value = MessageAt(message, stretch.block.begin + i);
    if (segment.addend) x[i] = value;
    most = fmaxf(most, fabsf(value));
  }
  __syncwarp();
  double measure = 0;
  if (spec.scale == ScaleRule::kMaxAbs) {
    measure = MaxAcrossWarp(most);
  } else {
    measure = SumOfPiece(begin, end, [&](int64_t i) { return TermOf(x[i], spec.scale); });
  }
  if (lane == 0) scratch[int64_t{blockIdx.x} * kTilePieces + warp] = measure;
}

// The scale of a block, into its body: work of the thread block of its first tile.
__global__ void __launch_bounds__(kThreads) StoreScales(const QuantizeSegment* segments, int count,
                                                        QuantizeSpec spec, const double* scratch) {
  __shared__ double lanes[kThreads];
  const QuantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const Stretch stretch = StretchAt(spec, segment, blockIdx.x);
  if (stretch.tile != 0) return;
  const int64_t pieces = (stretch.block.numel + kPiece - 1) / kPiece;
  const double* measures = scratch + int64_t{blockIdx.x} * kTilePieces;
  float scale = 0.0f;
  if (spec.scale == ScaleRule::kMaxAbs) {
    double most = 0;
    for (int64_t p = threadIdx.x; p < pieces; p += kThreads) most = fmax(most, measures[p]);
    lanes[threadIdx.x] = most;
    __syncthreads();
    for (int i = 0; i < kThreads; ++i) scale = fmaxf(scale, static_cast<float>(lanes[i]));
  } else {
    const double sum = SumOfPieces(measures, pieces, lanes);
    scale = quantize::ScaleFromSum(sum, stretch.block.numel, spec.scale);
  }
  if (threadIdx.x == 0) StoreAny(segment.body + stretch.block.body, scale);
}

__global__ void __launch_bounds__(kThreads)
    QuantizeStretches(const QuantizeSegment* segments, int count, QuantizeSpec spec) {
  const QuantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const Stretch stretch = StretchAt(spec, segment, blockIdx.x);
  const float scale = LoadAny<float>(segment.body + stretch.block.body);
  EncodeGroups(segment, spec, stretch.block, quantize::ScaleOfBlock(scale, spec.levels),
               stretch.begin, stretch.end, static_cast<int>(threadIdx.x), kThreads);
}

__global__ void __launch_bounds__(kThreads)
    DequantizeStretches(const DequantizeSegment* segments, int count, QuantizeSpec spec) {
  const DequantizeSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const Stretch stretch = StretchAt(spec, segment, blockIdx.x);
  DecodeGroups(segment, spec, stretch.block, stretch.begin, stretch.end,
               static_cast<int>(threadIdx.x), kThreads);
}

}  // namespace

void Quantize(Table<QuantizeSegment> table, const QuantizeSpec& spec, double* scratch,
              Stream stream) {
  if (AWarpABlock(spec)) {
    Launch(QuantizeBlocks, table.tiles, kThreads, stream, table.segments, table.count, spec);
    return;
  }
  Launch(MeasurePieces, table.tiles, kTilePieces * kWarp, stream, table.segments, table.count, spec,
         scratch);
  Launch(StoreScales, table.tiles, kThreads, stream, table.segments, table.count, spec, scratch);
  Launch(QuantizeStretches, table.tiles, kThreads, stream, table.segments, table.count, spec);
}

void DequantizeAdd(Table<DequantizeSegment> table, const QuantizeSpec& spec, Stream stream) {
  const auto kernel = AWarpABlock(spec) ? DequantizeBlocks : DequantizeStretches;
  Launch(kernel, table.tiles, kThreads, stream, table.segments, table.count, spec);
}

}  // namespace tw::kernels::device
