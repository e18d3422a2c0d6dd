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

__device__ void FlipAndScale(const RotateSegment& s, const float* from, float* to) {
  const float factor = 1.0f / std::sqrt(static_cast<float>(s.numel));
  for (int64_t i = threadIdx.x; i < s.numel; i += kThreads) {
    const uint32_t bits = ElementBits(s.key, s.first_index + static_cast<uint64_t>(i));
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
__global__ void __launch_bounds__(kThreads) RotateBlock(const RotateSegment* segments) {
  __shared__ float near[kTile];
  const RotateSegment s = segments[blockIdx.x];
  float* work = s.numel <= kTile ? near : s.x;
  if constexpr (kBack) {
    if (work != s.x) Copy(s.x, work, s.numel);
    Hadamard(work, s.numel);
    FlipAndScale(s, work, s.x);
  } else {
    FlipAndScale(s, s.x, work);
    Hadamard(work, s.numel);
    if (work != s.x) Copy(work, s.x, s.numel);
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
void Rotate(Table<RotateSegment> table, Stream stream) {
  Launch(RotateBlock<false>, table.count, kThreads, stream, table.segments);
}
void RotateBack(Table<RotateSegment> table, Stream stream) {
  Launch(RotateBlock<true>, table.count, kThreads, stream, table.segments);
}

}  // namespace tw::kernels::device
