#include "core/kernels/launch.cuh"
#include "core/kernels/normal_device.h"

namespace tw::kernels::device {
namespace {

// A thread a Philox counter: four numbers, sixteen apart.
__global__ void __launch_bounds__(kThreads) FillTiles(const NormalSegment* segments, int count) {
  constexpr int kEach = 4, kCounters = kNormalBlock / kEach;
  const NormalSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const TileRange tile = RangeOf(s, blockIdx.x);
  for (int64_t c = tile.begin / kEach + threadIdx.x; c < tile.end / kEach; c += kThreads) {
    const int64_t block = c / kCounters, place = c % kCounters;
    const uint64_t counter = (s.first_block + static_cast<uint64_t>(block)) * kCounters;
    const auto words = RngStream{s.key}.At(counter + static_cast<uint64_t>(place));
    float* to = s.out + block * s.stride + place;
    for (size_t pair = 0; pair < 2; ++pair) {
      const float radius = normal::Radius(words[2 * pair]);
      const normal::Turn turn = normal::TurnBy(words[2 * pair + 1]);
      to[32 * pair] = radius * turn.cos * s.scale;
      to[32 * pair + 16] = radius * turn.sin * s.scale;
    }
  }
}

}  // namespace

void FillNormal(Table<NormalSegment> table, Stream stream) {
  Launch(FillTiles, table.tiles, kThreads, stream, table.segments, table.count);
}

}  // namespace tw::kernels::device
