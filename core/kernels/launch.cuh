#pragma once
// What all .cu files share: the one place that launches, finding the segment of a tile, bytes at
// any address, sums and maxima over a warp.
//
// The same sources are compiled for the CPU by tests/cuda/emulation, which supplies CUDA's names
// through a header that the compiler includes first.

#include <cstring>
#include <type_traits>

#include "core/base/host_device.h"
#include "core/kernels/device.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
// For loops over arrays that are to lie in registers.
#define TW_UNROLL _Pragma("unroll")
#else
#define TW_UNROLL
#endif

namespace tw::kernels::device {

inline constexpr int kThreads = 256, kWarp = 32, kWarps = kThreads / kWarp;
inline constexpr unsigned kWholeWarp = 0xFFFFFFFFu;

inline cudaStream_t CudaStream(Stream stream) { return reinterpret_cast<cudaStream_t>(stream); }

// `blocks` thread blocks of `threads`; none: no launch.
template <class... Parameters>
void Launch(void (*kernel)(Parameters...), int64_t blocks, int threads, Stream stream,
            std::type_identity_t<Parameters>... arguments) {
  if (blocks == 0) return;
  const auto grid = static_cast<unsigned>(blocks), block = static_cast<unsigned>(threads);
#if defined(__CUDACC__)
  kernel<<<grid, block, 0, CudaStream(stream)>>>(arguments...);
#else
  emulation::Launch(grid, block, CudaStream(stream), [=] { kernel(arguments...); });
#endif
}

// The segment that holds a tile: the last one that starts at or before it. `first` for segments
// whose tiles are numbered in two ways.
template <class Segment>
__device__ inline int SegmentOf(const Segment* segments, int count, int64_t tile,
                                int64_t Segment::*first = &Segment::first_tile) {
  int low = 0, high = count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (segments[middle].*first <= tile) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// Elements [begin, end) of a segment: those of one tile.
struct TileRange {
  int64_t begin, end;
};
template <class Segment>
__device__ inline TileRange RangeOf(const Segment& segment, int64_t tile) {
  const int64_t begin = (tile - segment.first_tile) * kTile;
  const int64_t end = begin + kTile;
  return {begin, end < segment.numel ? end : segment.numel};
}

// op(segment, i) for every element of every segment.
template <class Segment, class Op>
__global__ void __launch_bounds__(kThreads)
    ForEachElement(const Segment* segments, int count, Op op) {
  const Segment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const TileRange range = RangeOf(segment, blockIdx.x);
  for (int64_t i = range.begin + threadIdx.x; i < range.end; i += kThreads) op(segment, i);
}
template <class Segment, class Op>
void LaunchForEach(const Table<Segment>& table, Stream stream, Op op) {
  Launch(ForEachElement<Segment, Op>, table.tiles, kThreads, stream, table.segments, table.count,
         op);
}

// A number at any address: bodies are bytes, and a GPU faults on addresses that are not aligned.
template <class T>
__device__ inline T LoadAny(const uint8_t* from) {
  if (reinterpret_cast<uintptr_t>(from) % sizeof(T) == 0) return *reinterpret_cast<const T*>(from);
  uint8_t bytes[sizeof(T)];
  for (size_t i = 0; i < sizeof(T); ++i) bytes[i] = from[i];
  T value;
  memcpy(&value, bytes, sizeof(T));
  return value;
}
template <class T>
__device__ inline void StoreAny(uint8_t* to, T value) {
  if (reinterpret_cast<uintptr_t>(to) % sizeof(T) == 0) {
    *reinterpret_cast<T*>(to) = value;
    return;
  }
  uint8_t bytes[sizeof(T)];
  memcpy(bytes, &value, sizeof(T));
  for (size_t i = 0; i < sizeof(T); ++i) to[i] = bytes[i];
}

// All lanes get the result; all must come.
template <class T, class Combine>
__device__ inline T AcrossWarp(T value, Combine combine) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(kWholeWarp, value, distance));
  }
  return value;
}
template <class T>
__device__ inline T SumAcrossWarp(T value) {
  return AcrossWarp(value, [](T a, T b) { return a + b; });
}
template <class T>
__device__ inline T MaxAcrossWarp(T value) {
  return AcrossWarp(value, [](T a, T b) { return a < b ? b : a; });
}

// message[i], whose pending addition is done on the way (core/kernels/message_view.h).
struct MessageSpan {
  float* buffer;
  const float* addend;  // may be null
  float scale;
};
__device__ inline float MessageAt(const MessageSpan& message, int64_t i) {
  return message.addend ? message.buffer[i] + message.scale * message.addend[i] : message.buffer[i];
}

}  // namespace tw::kernels::device
