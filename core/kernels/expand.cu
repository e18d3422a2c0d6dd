#include "core/kernels/expand_device.h"
#include "core/kernels/launch.cuh"

namespace tw::kernels::device {
namespace {

struct ExpandOne {
  __device__ void operator()(const ExpandSegment& s, int64_t at) const {
    const int64_t i = at / s.cols, j = at % s.cols;
    const float* strip = s.projection + j / kStripCols * s.rank * kStripCols + j % kStripCols;
    float sum = 0.0f;
    for (int64_t k = 0; k < s.rank; ++k) {
      sum = sum + s.update[i * s.rank + k] * strip[k * kStripCols];
    }
    s.value[at] = s.keep * s.value[at] + s.scale * sum;
  }
};

}  // namespace

void Expand(Table<ExpandSegment> table, Stream stream) {
  LaunchForEach(table, stream, ExpandOne());
}

}  // namespace tw::kernels::device
