#include "core/kernels/clip_device.h"

#include <cmath>

#include "core/kernels/float16.h"
#include "core/kernels/launch.cuh"

namespace tw::kernels::device {
namespace {

// A warp fetches, one lane adds: there are some hundred tensors, and their order is the host's.
__global__ void __launch_bounds__(kWarp) AddSums(const double* sums, int count, double* norm) {
  const int lane = static_cast<int>(threadIdx.x);
  double total = 0;
  for (int first = 0; first < count; first += kWarp) {
    const double own = first + lane < count ? sums[first + lane] : 0.0;
    for (int i = 0; i < kWarp && first + i < count; ++i) total += __shfl_sync(kWholeWarp, own, i);
  }
  if (lane == 0) *norm = std::sqrt(total);
}

__global__ void MultiplyScale(StepClip clip, float* grad_scale) {
  if (*clip.norm > clip.limit) *grad_scale *= static_cast<float>(clip.limit / *clip.norm);
}

__global__ void __launch_bounds__(kThreads)
    ClipTiles(const ReduceSegment* segments, int count, double limit, const double* sums) {
  const int at = SegmentOf(segments, count, blockIdx.x);
  const ReduceSegment segment = segments[at];
  const double norm = std::sqrt(sums[at]);
  if (!(norm > limit)) return;
  const auto factor = static_cast<float>(limit / norm - 1);
  const TileRange range = RangeOf(segment, blockIdx.x);
  const auto clip = [&](auto* x, auto widen, auto narrow) {
    for (int64_t i = range.begin + threadIdx.x; i < range.end; i += kThreads) {
      const float old = widen(x[i]);
      x[i] = narrow(old + factor * old);
    }
  };
  auto* x = const_cast<void*>(segment.x);
  if (segment.dtype == DType::kF16) {
    clip(
        static_cast<uint16_t*>(x), [](uint16_t bits) { return HalfToFloat(bits); },
        [](float value) { return FloatToHalfSaturated(value); });
  } else if (segment.dtype == DType::kBF16) {
    clip(
        static_cast<uint16_t*>(x), [](uint16_t bits) { return Bf16ToFloat(bits); },
        [](float value) { return FloatToBf16(value); });
  } else {
    const auto same = [](float value) { return value; };
    clip(static_cast<float*>(x), same, same);
  }
}

}  // namespace

void NormOfSums(const double* sums, int count, double* norm, Stream stream) {
  Launch(AddSums, 1, kWarp, stream, sums, count, norm);
}
void ClipEach(Table<ReduceSegment> table, double limit, const double* sums, Stream stream) {
  Launch(ClipTiles, table.tiles, kThreads, stream, table.segments, table.count, limit, sums);
}
void ClipScale(const StepClip& clip, float* grad_scale, Stream stream) {
  if (clip.limit > 0) Launch(MultiplyScale, 1, 1, stream, clip, grad_scale);
}

}  // namespace tw::kernels::device
