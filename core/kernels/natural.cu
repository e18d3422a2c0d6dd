#include "core/kernels/launch.cuh"
#include "core/kernels/natural_device.h"
#include "core/kernels/random.h"

namespace tw::kernels::device {
namespace {

// A lane an element; the signs of a warp's 32 are four bytes.
__global__ void __launch_bounds__(kThreads) EncodeTiles(const NaturalSegment* segments, int count) {
  const NaturalSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const TileRange tile = RangeOf(s, blockIdx.x);
  const MessageSpan message{s.buffer, s.addend, s.scale};
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (int64_t at = tile.begin + threadIdx.x - lane; at < tile.end; at += kThreads) {
    const int64_t i = at + lane;
    bool negative = false;
    if (i < tile.end) {
      const float x = MessageAt(message, i);
      negative = __float_as_uint(x) >> 31 != 0;
      const uint32_t random = ElementBits(s.key, s.first_index + static_cast<uint64_t>(i));
      const uint8_t exponent = NaturalExponent(x, random);
      s.body[i] = exponent;
      s.buffer[i] = x - NaturalValue(exponent, negative);
    }
    const unsigned signs = __ballot_sync(kWholeWarp, negative);
    if (lane % 8 == 0 && i < tile.end) {
      s.body[s.numel + i / 8] = static_cast<uint8_t>(signs >> lane);
    }
  }
}

struct DecodeAdd {
  __device__ void operator()(const NaturalSegment& s, int64_t i) const {
    const bool negative = s.body[s.numel + i / 8] >> (i % 8) & 1;
    s.buffer[i] += s.scale * NaturalValue(s.body[i], negative);
  }
};

}  // namespace

void NaturalEncode(Table<NaturalSegment> table, Stream stream) {
  Launch(EncodeTiles, table.tiles, kThreads, stream, table.segments, table.count);
}
void NaturalDecodeAdd(Table<NaturalSegment> table, Stream stream) {
  LaunchForEach(table, stream, DecodeAdd());
}

}  // namespace tw::kernels::device
