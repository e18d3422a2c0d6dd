#include "core/kernels/optimizer_device.h"
#include "core/kernels/step_access.cuh"
#include "core/kernels/sums.cuh"

namespace tw::kernels::device {
namespace {

struct AdamW {
  const AdamWCoefficients<float>* c;
  template <class Segment>
  __device__ void operator()(const Segment& s, int64_t i) const {
    float p = ParameterAt(s, i);
    AdamWElement(p, GradientAt(s, i), s.m[i], s.v[i], *c);
    PutParameter(s, i, p);
  }
};
struct SecondMoment {
  const AdamWCoefficients<float>* c;
  __device__ void operator()(const StepSegment& s, int64_t i) const {
    s.v[i] = SecondMomentElement(s.g[i], s.v[i], *c);
  }
};
struct Sgd {
  const SgdmCoefficients<float>* c;
  template <class Segment>
  __device__ void operator()(const Segment& s, int64_t i) const {
    float p = ParameterAt(s, i);
    SgdElement(p, GradientAt(s, i), *c);
    PutParameter(s, i, p);
  }
};
struct Sgdm {
  const SgdmCoefficients<float>* c;
  template <class Segment>
  __device__ void operator()(const Segment& s, int64_t i) const {
    float p = ParameterAt(s, i);
    SgdmElement(p, GradientAt(s, i), s.m[i], *c);
    PutParameter(s, i, p);
  }
};

__global__ void __launch_bounds__(kThreads)
    StepAdamMini(const AdamMiniSegment* segments, int count, const AdamWCoefficients<float>* at) {
  __shared__ double pieces[kWarps];
  __shared__ float shared_denominator;
  const AdamMiniSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const AdamWCoefficients<float> c = *at;
  const int64_t index = blockIdx.x - segment.first_tile, first = index * segment.block;
  const float* g = segment.g + first;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  double sum = 0;
  for (int64_t round = 0; round < segment.block; round += kWarps * kPiece) {
    const int64_t begin = round + warp * kPiece;
    const int64_t end = begin + kPiece < segment.block ? begin + kPiece : segment.block;
    const double piece = SumOfPiece(begin, end, [&](int64_t i) {
      const double x = g[i] * c.grad_scale;
      return x * x;
    });
    if (threadIdx.x % kWarp == 0) pieces[warp] = piece;
    __syncthreads();
    for (int w = 0; w < kWarps && round + w * kPiece < segment.block; ++w) sum += pieces[w];
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    const float mean = static_cast<float>(sum / static_cast<double>(segment.block));
    const float v = c.beta2 * segment.v[index] + c.rest2 * mean;
    segment.v[index] = v;
    shared_denominator = std::sqrt(v) * c.inverse_root_bias + c.eps;
  }
  __syncthreads();
  const float denominator = shared_denominator;
  for (int64_t i = first + threadIdx.x; i < first + segment.block; i += kThreads) {
    AdamMiniElement(segment.p[i], segment.g[i], segment.m[i], denominator, c);
  }
}

}  // namespace

void AdamWStep(Table<StepSegment> table, const AdamWCoefficients<float>* c, Stream stream) {
  LaunchForEach(table, stream, AdamW{c});
}
void SecondMomentStep(Table<StepSegment> table, const AdamWCoefficients<float>* c, Stream stream) {
  LaunchForEach(table, stream, SecondMoment{c});
}
void SgdStep(Table<StepSegment> table, const SgdmCoefficients<float>* c, Stream stream) {
  LaunchForEach(table, stream, Sgd{c});
}
void SgdmStep(Table<StepSegment> table, const SgdmCoefficients<float>* c, Stream stream) {
  LaunchForEach(table, stream, Sgdm{c});
}

void AdamWStepNarrow(Table<NarrowStepSegment> table, const AdamWCoefficients<float>* c,
                     Stream stream) {
  LaunchForEach(table, stream, AdamW{c});
}
void SgdStepNarrow(Table<NarrowStepSegment> table, const SgdmCoefficients<float>* c,
                   Stream stream) {
  LaunchForEach(table, stream, Sgd{c});
}
void SgdmStepNarrow(Table<NarrowStepSegment> table, const SgdmCoefficients<float>* c,
                    Stream stream) {
  LaunchForEach(table, stream, Sgdm{c});
}

int64_t PlaceAdamMini(std::span<AdamMiniSegment> segments) {
  int64_t tiles = 0;
  for (AdamMiniSegment& segment : segments) {
    segment.first_tile = tiles;
    if (segment.numel > 0) tiles += segment.numel / segment.block;
  }
  return tiles;
}
void AdamMiniStep(Table<AdamMiniSegment> table, const AdamWCoefficients<float>* c, Stream stream) {
  Launch(StepAdamMini, table.tiles, kThreads, stream, table.segments, table.count, c);
}

}  // namespace tw::kernels::device
