#include "core/kernels/launch.cuh"
#include "core/kernels/memory_device.h"

namespace tw::kernels::device {
namespace {

struct alignas(16) Quad {
  uint64_t low, high;
};

// Bytes [begin, end) of `from`, `Word` by word where both sides allow it.
template <class Word>
__device__ void CopyWords(const CopySegment& s, int64_t begin, int64_t end) {
  constexpr int64_t kBytes = sizeof(Word);
  // Bytes up to the first aligned address, and behind the last one.
  int64_t head = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(s.to + begin) & (kBytes - 1));
  if (head > end - begin) head = end - begin;
  const int64_t first = begin + head, words = (end - first) / kBytes;
  auto* to = reinterpret_cast<Word*>(s.to + first);
  const auto* from = reinterpret_cast<const Word*>(s.from + first);
  for (int64_t i = threadIdx.x; i < words; i += kThreads) to[i] = from[i];
  for (int64_t i = begin + threadIdx.x; i < first; i += kThreads) s.to[i] = s.from[i];
  for (int64_t i = first + words * kBytes + threadIdx.x; i < end; i += kThreads) {
    s.to[i] = s.from[i];
  }
}

// Tiles begin where the pattern does.
__device__ void Fill(const CopySegment& s, int64_t begin, int64_t end) {
  int64_t quads = 0;
  if (reinterpret_cast<uintptr_t>(s.to) % sizeof(Quad) == 0) {
    quads = (end - begin) / static_cast<int64_t>(sizeof(Quad));
    Quad quad;
    memcpy(&quad, s.pattern, sizeof(Quad));
    auto* to = reinterpret_cast<Quad*>(s.to + begin);
    for (int64_t i = threadIdx.x; i < quads; i += kThreads) to[i] = quad;
  }
  const int64_t rest = begin + quads * static_cast<int64_t>(sizeof(Quad));
  for (int64_t i = rest + threadIdx.x; i < end; i += kThreads) s.to[i] = s.pattern[i % 16];
}

__global__ void __launch_bounds__(kThreads) CopyTiles(const CopySegment* segments, int count) {
  const CopySegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const int64_t begin = (blockIdx.x - s.first_tile) * kCopyTile;
  const int64_t end = begin + kCopyTile < s.numel ? begin + kCopyTile : s.numel;
  if (s.from == nullptr) return Fill(s, begin, end);
  const uintptr_t apart = reinterpret_cast<uintptr_t>(s.to) ^ reinterpret_cast<uintptr_t>(s.from);
  if (apart % 16 == 0) {
    CopyWords<Quad>(s, begin, end);
  } else if (apart % 4 == 0) {
    CopyWords<uint32_t>(s, begin, end);
  } else {
    for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) s.to[i] = s.from[i];
  }
}

}  // namespace

void CopySegments(Table<CopySegment> table, Stream stream) {
  Launch(CopyTiles, table.tiles, kThreads, stream, table.segments, table.count);
}

}  // namespace tw::kernels::device
