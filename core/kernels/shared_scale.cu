#include "core/kernels/shared_scale_device.h"

#include "core/kernels/launch.cuh"
#include "core/kernels/random.h"

namespace tw::kernels::device {
namespace {

__global__ void __launch_bounds__(kThreads) ClearScales(const LevelSegment* segments) {
  const LevelSegment s = segments[blockIdx.x];
  const int64_t count = s.numel == 0 ? 0 : (s.numel + s.block - 1) / s.block;
  for (int64_t b = threadIdx.x; b < count; b += kThreads) s.scales[b] = 0;
}

// Magnitudes of finite numbers are in the order of their bits. Neighbouring lanes share a block.
__global__ void __launch_bounds__(kThreads) RaiseScales(const LevelSegment* segments, int count) {
  const LevelSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const TileRange tile = RangeOf(s, blockIdx.x);
  const int shared = s.block < kWarp ? static_cast<int>(s.block) : kWarp;
  for (int64_t at = tile.begin; at < tile.end; at += kThreads) {
    const int64_t i = at + threadIdx.x;
    unsigned most = i < tile.end ? __float_as_uint(s.x[i]) & 0x7FFFFFFFu : 0;
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      const unsigned other = __shfl_xor_sync(kWholeWarp, most, distance);
      if (distance < shared && most < other) most = other;
    }
    if (i < tile.end && i % shared == 0) {
      atomicMax(reinterpret_cast<unsigned*>(s.scales + i / s.block), most);
    }
  }
}

struct Round {
  int levels;
  __device__ void operator()(const LevelSegment& s, int64_t i) const {
    const uint64_t index = s.first_index + static_cast<uint64_t>(i);
    const float u = CentredUniform(ElementBits(s.key, index));
    s.codes[i] = static_cast<int8_t>(RoundToLevel(s.x[i], s.scales[i / s.block], levels, u));
  }
};
struct Value {
  int levels;
  __device__ void operator()(const LevelSegment& s, int64_t i) const {
    const float step = s.scales[i / s.block] / static_cast<float>(levels);
    s.x[i] = step * static_cast<float>(s.codes[i]);
  }
};

// One block of a message.
struct Block {
  float* x;
  int64_t numel;
  uint64_t key, first_index;
};
__device__ void FlipAndScale(const Block& b, const float* from, float* to) {
  const float factor = 1.0f / std::sqrt(static_cast<float>(b.numel));
  for (int64_t i = threadIdx.x; i < b.numel; i += kThreads) {
    const uint32_t bits = ElementBits(b.key, b.first_index + static_cast<uint64_t>(i));
    to[i] = from[i] * (bits & 1 ? -factor : factor);
  }
  __syncthreads();
}
__device__ void Hadamard(float* x, int64_t n) {
  for (int64_t half = 1; half < n; half *= 2) {
    for (int64_t pair = threadIdx.x; pair < n / 2; pair += kThreads) {
      const int64_t i = pair / half * 2 * half + pair % half;
      const float a = x[i], b = x[i + half];
      x[i] = a + b;
      x[i + half] = a - b;
    }
    __syncthreads();
  }
}
__device__ void Copy(const float* from, float* to, int64_t n) {
  for (int64_t i = threadIdx.x; i < n; i += kThreads) to[i] = from[i];
  __syncthreads();
}

template <bool kBack>
__global__ void __launch_bounds__(kThreads) RotateBlock(const RotateSegment* segments, int count) {
  __shared__ float near[kTile];
  const RotateSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const int64_t begin = (blockIdx.x - s.first_tile) * s.block, left = s.numel - begin;
  const Block b{s.x + begin, left < s.block ? left : s.block, s.key,
                s.first_index + static_cast<uint64_t>(begin)};
  float* work = b.numel <= kTile ? near : b.x;
  if constexpr (kBack) {
    if (work != b.x) Copy(b.x, work, b.numel);
    Hadamard(work, b.numel);
    FlipAndScale(b, work, b.x);
  } else {
    FlipAndScale(b, b.x, work);
    Hadamard(work, b.numel);
    if (work != b.x) Copy(work, b.x, b.numel);
  }
}

}  // namespace

void LargestOfBlocks(Table<LevelSegment> table, Stream stream) {
  Launch(ClearScales, table.count, kThreads, stream, table.segments);
  Launch(RaiseScales, table.tiles, kThreads, stream, table.segments, table.count);
}
void RoundToLevels(Table<LevelSegment> table, int levels, Stream stream) {
  LaunchForEach(table, stream, Round{levels});
}
void ValuesOfLevels(Table<LevelSegment> table, int levels, Stream stream) {
  LaunchForEach(table, stream, Value{levels});
}
int64_t PlaceRotated(std::span<RotateSegment> segments) {
  int64_t tiles = 0;
  for (RotateSegment& segment : segments) {
    segment.first_tile = tiles;
    tiles += (segment.numel + segment.block - 1) / segment.block;
  }
  return tiles;
}
void Rotate(Table<RotateSegment> table, Stream stream) {
  Launch(RotateBlock<false>, table.tiles, kThreads, stream, table.segments, table.count);
}
void RotateBack(Table<RotateSegment> table, Stream stream) {
  Launch(RotateBlock<true>, table.tiles, kThreads, stream, table.segments, table.count);
}

}  // namespace tw::kernels::device
