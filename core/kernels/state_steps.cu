#include "core/kernels/state_steps_device.h"

#include "core/kernels/state_codes.cuh"
#include "core/kernels/state_whole_tiles.cuh"
#include "core/kernels/step_access.cuh"

namespace tw::kernels::device {
namespace {

using SignedCoder4 = Coder4<Code4::kDeSigned>;
using LinearCoder4 = Coder4<Code4::kLinear>;
using SignedCoder8 = Coder8<Code8::kDeSigned>;
using UnsignedCoder8 = Coder8<Code8::kDeUnsigned>;

template <class MCoder, class VCoder, class Segment>
__global__ void __launch_bounds__(kThreads)
    StepAdamW(const Segment* segments, int count, const AdamWCoefficients<float>* at) {
  constexpr int kEach = MCoder::kEach;
  constexpr int64_t kBlock = int64_t{kEach} * kWarp;
  const Segment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const AdamWCoefficients<float> c = *at;
  if constexpr (std::is_same_v<MCoder, SignedCoder4> && std::is_same_v<VCoder, LinearCoder4>) {
    __shared__ SignedCell cells[kCells];
    if (IsWholeTile(s)) return StepWholeTile(s, c, cells);
  }
  ForBlocks<kBlock>(s, [&](int64_t block) {
    const int64_t first = block * kBlock + LaneInWarp() * kEach;
    float p[kEach], g[kEach], m[kEach], v[kEach];
    LoadStep(s, first, p, g);
    DecodeLane<MCoder>(s.m_codes, s.m_scales[block], first, s.numel, m);
    DecodeLane<VCoder>(s.v_codes, s.v_scales[block], first, s.numel, v);
    for (int i = 0; i < kEach; ++i) AdamWElement(p[i], g[i], m[i], v[i], c);
    StoreStep(s, first, p);
    const float m_scale = EncodeLane<MCoder>(m, first, s.numel, s.m_codes);
    const float v_scale = EncodeLane<VCoder>(v, first, s.numel, s.v_codes);
    if (LaneInWarp() == 0) {
      s.m_scales[block] = m_scale;
      s.v_scales[block] = v_scale;
    }
  });
}

template <class Segment>
__global__ void __launch_bounds__(kThreads)
    StepSgdm(const Segment* segments, int count, const SgdmCoefficients<float>* at) {
  constexpr int kEach = SignedCoder4::kEach;
  const Segment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const SgdmCoefficients<float> c = *at;
  ForBlocks<kStateBlock4>(s, [&](int64_t block) {
    const int64_t first = block * kStateBlock4 + LaneInWarp() * kEach;
    float p[kEach], g[kEach], m[kEach];
    LoadStep(s, first, p, g);
    DecodeLane<SignedCoder4>(s.m_codes, s.m_scales[block], first, s.numel, m);
    for (int i = 0; i < kEach; ++i) SgdmElement(p[i], g[i], m[i], c);
    StoreStep(s, first, p);
    const float scale = EncodeLane<SignedCoder4>(m, first, s.numel, s.m_codes);
    if (LaneInWarp() == 0) s.m_scales[block] = scale;
  });
}

// Rank 1. A lane's four elements may lie in several rows.
__device__ int64_t MaximaOf(const Rank1StepSegment& s) { return s.numel / s.cols + s.cols; }
__device__ float Rank1Scale(const Rank1StepSegment& s, const float* maxima, int64_t i) {
  const float row = maxima[i / s.cols], col = maxima[s.numel / s.cols + i % s.cols];
  return col < row ? col : row;
}
// Old v of a lane.
__device__ void DecodeRank1(const Rank1StepSegment& s, int64_t first,
                            float (&v)[LinearCoder4::kEach]) {
  DecodeLane<LinearCoder4>(s.v_codes, 1.0f, first, s.numel, v);
  for (int i = 0; i < LinearCoder4::kEach && first + i < s.numel; ++i) {
    v[i] *= Rank1Scale(s, s.v_maxima, first + i);
  }
}
// Numbers >= 0 are in the order of their bits; a NaN raises nothing.
__device__ void Raise(float* to, float value) {
  if (*to < value) {
    atomicMax(reinterpret_cast<int*>(to), static_cast<int>(__float_as_uint(value)));
  }
}

struct ClearMaxima {
  __device__ void operator()(const Rank1StepSegment& s, int64_t i) const { s.new_maxima[i] = 0; }
};
struct CommitMaxima {
  __device__ void operator()(const Rank1StepSegment& s, int64_t i) const {
    const float fresh = s.new_maxima[i];
    s.v_maxima[i] = fresh < 1.17549435e-38f ? 0 : fresh;
  }
};
// op(segment, i) for the maxima of every segment; a thread block a segment.
template <class Op>
__global__ void __launch_bounds__(kThreads) ForMaxima(const Rank1StepSegment* segments, Op op) {
  const Rank1StepSegment s = segments[blockIdx.x];
  if (s.numel == 0) return;
  for (int64_t i = threadIdx.x; i < MaximaOf(s); i += kThreads) op(s, i);
}

__global__ void __launch_bounds__(kThreads)
    StepAndRaise(const Rank1StepSegment* segments, int count, const AdamWCoefficients<float>* at) {
  constexpr int kEach = SignedCoder4::kEach;
  const Rank1StepSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const AdamWCoefficients<float> c = *at;
  const int64_t rows = s.numel / s.cols;
  ForBlocks<kStateBlock4>(s, [&](int64_t block) {
    const int64_t first = block * kStateBlock4 + LaneInWarp() * kEach;
    float p[kEach], g[kEach], m[kEach], v[kEach];
    LoadFloats(s.p, first, s.numel, p);
    LoadFloats(s.g, first, s.numel, g);
    DecodeLane<SignedCoder4>(s.m_codes, s.m_scales[block], first, s.numel, m);
    DecodeRank1(s, first, v);
    for (int i = 0; i < kEach; ++i) AdamWElement(p[i], g[i], m[i], v[i], c);
    StoreFloats(s.p, first, s.numel, p);
    const float scale = EncodeLane<SignedCoder4>(m, first, s.numel, s.m_codes);
    if (LaneInWarp() == 0) s.m_scales[block] = scale;
    for (int i = 0; i < kEach && first + i < s.numel; ++i) {
      Raise(s.new_maxima + (first + i) / s.cols, v[i]);
      Raise(s.new_maxima + rows + (first + i) % s.cols, v[i]);
    }
  });
}

__global__ void __launch_bounds__(kThreads)
    EncodeRank1(const Rank1StepSegment* segments, int count, const AdamWCoefficients<float>* at) {
  constexpr int kEach = LinearCoder4::kEach;
  const Rank1StepSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const AdamWCoefficients<float> c = *at;
  ForBlocks<kStateBlock4>(s, [&](int64_t block) {
    const int64_t first = block * kStateBlock4 + LaneInWarp() * kEach;
    float g[kEach], v[kEach];
    LoadFloats(s.g, first, s.numel, g);
    DecodeRank1(s, first, v);
    unsigned code[kEach] = {};
    for (int i = 0; i < kEach && first + i < s.numel; ++i) {
      const float scale = Rank1Scale(s, s.new_maxima, first + i);
      const float x = SecondMomentElement(g[i], v[i], c);
      code[i] = LinearCoder4::Code(scale < 1.17549435e-38f ? 0.0f : x / scale);
    }
    LinearCoder4::Store(s.v_codes, first, s.numel, code);
  });
}

template <class MCoder, class VCoder, class Segment>
void LaunchAdamW(const Table<Segment>& table, const AdamWCoefficients<float>* c, Stream stream) {
  Launch(StepAdamW<MCoder, VCoder, Segment>, table.tiles, kThreads, stream, table.segments,
         table.count, c);
}
template <class Segment>
void LaunchSgdm(const Table<Segment>& table, const SgdmCoefficients<float>* c, Stream stream) {
  Launch(StepSgdm<Segment>, table.tiles, kThreads, stream, table.segments, table.count, c);
}

}  // namespace

void AdamWStep4(Table<CodedStepSegment> table, const AdamWCoefficients<float>* c, Stream stream) {
  LaunchAdamW<SignedCoder4, LinearCoder4>(table, c, stream);
}
void AdamWStep8(Table<CodedStepSegment> table, const AdamWCoefficients<float>* c, Stream stream) {
  LaunchAdamW<SignedCoder8, UnsignedCoder8>(table, c, stream);
}
void SgdmStep4(Table<CodedStepSegment> table, const SgdmCoefficients<float>* c, Stream stream) {
  LaunchSgdm(table, c, stream);
}
void AdamWStep4Narrow(Table<NarrowCodedStepSegment> table, const AdamWCoefficients<float>* c,
                      Stream stream) {
  LaunchAdamW<SignedCoder4, LinearCoder4>(table, c, stream);
}
void AdamWStep8Narrow(Table<NarrowCodedStepSegment> table, const AdamWCoefficients<float>* c,
                      Stream stream) {
  LaunchAdamW<SignedCoder8, UnsignedCoder8>(table, c, stream);
}
void SgdmStep4Narrow(Table<NarrowCodedStepSegment> table, const SgdmCoefficients<float>* c,
                     Stream stream) {
  LaunchSgdm(table, c, stream);
}

void AdamWStepRank1(Table<Rank1StepSegment> table, const AdamWCoefficients<float>* c,
                    Stream stream) {
  if (table.tiles == 0) return;
  Launch(ForMaxima<ClearMaxima>, table.count, kThreads, stream, table.segments, ClearMaxima());
  Launch(StepAndRaise, table.tiles, kThreads, stream, table.segments, table.count, c);
  Launch(EncodeRank1, table.tiles, kThreads, stream, table.segments, table.count, c);
  Launch(ForMaxima<CommitMaxima>, table.count, kThreads, stream, table.segments, CommitMaxima());
}

}  // namespace tw::kernels::device
