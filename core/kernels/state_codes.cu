#include "core/kernels/state_codes.cuh"

#include "core/kernels/float16.h"
#include "core/kernels/random.h"
#include "core/kernels/state_codes_device.h"

namespace tw::kernels::device {
namespace {

// A warp a block; `kEncode`: from x to codes and scales, else back.
template <class Coder, bool kEncode>
__global__ void __launch_bounds__(kThreads) CodeBlocks(const CodesSegment* segments, int count) {
  constexpr int kEach = Coder::kEach;
  constexpr int64_t kBlock = int64_t{kEach} * kWarp;
  const CodesSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  ForBlocks<kBlock>(s, [&](int64_t block) {
    const int64_t first = block * kBlock + LaneInWarp() * kEach;
    float x[kEach];
    if constexpr (kEncode) {
      LoadFloats(s.x, first, s.numel, x);
      const float scale = EncodeLane<Coder>(x, first, s.numel, s.codes);
      if (LaneInWarp() == 0) s.scales[block] = scale;
    } else {
      DecodeLane<Coder>(s.codes, s.scales[block], first, s.numel, x);
      StoreFloats(s.x, first, s.numel, x);
    }
  });
}

template <bool kEncode>
void Code4Blocks(Code4 code, const Table<CodesSegment>& table, Stream stream) {
  const auto launch = [&](auto kernel) {
    Launch(kernel, table.tiles, kThreads, stream, table.segments, table.count);
  };
  if (code == Code4::kDeSigned) launch(CodeBlocks<Coder4<Code4::kDeSigned>, kEncode>);
  if (code == Code4::kDeUnsigned) launch(CodeBlocks<Coder4<Code4::kDeUnsigned>, kEncode>);
  if (code == Code4::kDeNoZero) launch(CodeBlocks<Coder4<Code4::kDeNoZero>, kEncode>);
  if (code == Code4::kLinear) launch(CodeBlocks<Coder4<Code4::kLinear>, kEncode>);
}
template <bool kEncode>
void Code8Blocks(Code8 code, const Table<CodesSegment>& table, Stream stream) {
  const auto kernel = code == Code8::kDeSigned ? CodeBlocks<Coder8<Code8::kDeSigned>, kEncode>
                                               : CodeBlocks<Coder8<Code8::kDeUnsigned>, kEncode>;
  Launch(kernel, table.tiles, kThreads, stream, table.segments, table.count);
}

struct Round {
  __device__ void operator()(const Bf16Segment& s, int64_t i) const {
    s.narrow[i] = FloatToBf16Random(s.x[i], ElementBits(s.key, s.first + static_cast<uint64_t>(i)));
  }
};
struct Widen {
  __device__ void operator()(const Bf16Segment& s, int64_t i) const {
    s.x[i] = Bf16ToFloat(s.narrow[i]);
  }
};

}  // namespace

void EncodeBlocks4(Code4 code, Table<CodesSegment> table, Stream stream) {
  Code4Blocks<true>(code, table, stream);
}
void DecodeBlocks4(Code4 code, Table<CodesSegment> table, Stream stream) {
  Code4Blocks<false>(code, table, stream);
}
void EncodeBlocks8(Code8 code, Table<CodesSegment> table, Stream stream) {
  Code8Blocks<true>(code, table, stream);
}
void DecodeBlocks8(Code8 code, Table<CodesSegment> table, Stream stream) {
  Code8Blocks<false>(code, table, stream);
}

void RoundToBf16(Table<Bf16Segment> table, Stream stream) { LaunchForEach(table, stream, Round()); }
void WidenBf16(Table<Bf16Segment> table, Stream stream) { LaunchForEach(table, stream, Widen()); }

}  // namespace tw::kernels::device
