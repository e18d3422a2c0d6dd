#include "core/kernels/expand.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/expand.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;
using VF = hn::Vec<DF>;

// kRows rows by kVectors vectors of accumulators.
template <int kRows, int kVectors>
void Block(float* HWY_RESTRICT value, const ExpandShape& shape, const float* HWY_RESTRICT update,
           const float* HWY_RESTRICT strip, float keep, float scale) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  VF sum[kRows][kVectors];
  for (auto& of_row : sum) {
    for (VF& s : of_row) s = hn::Zero(d);
  }
  for (int64_t k = 0; k < shape.rank; ++k) {
    VF p[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      p[v] = hn::LoadU(d, strip + k * kStripCols + static_cast<size_t>(v) * lanes);
    }
    for (int r = 0; r < kRows; ++r) {
      const VF u = hn::Set(d, update[r * shape.rank + k]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::Add(sum[r][v], hn::Mul(u, p[v]));
    }
  }
  const VF keeps = hn::Set(d, keep), scales = hn::Set(d, scale);
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      float* at = value + r * shape.stride + static_cast<int64_t>(static_cast<size_t>(v) * lanes);
      const VF old = hn::Mul(keeps, hn::LoadU(d, at));
      hn::StoreU(hn::Add(old, hn::Mul(scales, sum[r][v])), d, at);
    }
  }
}

template <int kRows>
void Rows(float* value, const ExpandShape& shape, const float* update, const float* strip,
          float keep, float scale) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(DF()));
  int64_t j = 0;
  for (; j + 2 * lanes <= shape.cols; j += 2 * lanes) {
    Block<kRows, 2>(value + j, shape, update, strip + j, keep, scale);
  }
  for (; j + lanes <= shape.cols; j += lanes) {
    Block<kRows, 1>(value + j, shape, update, strip + j, keep, scale);
  }
  for (; j < shape.cols; ++j) {
    for (int r = 0; r < kRows; ++r) {
      float sum = 0.0f;
      for (int64_t k = 0; k < shape.rank; ++k) {
        sum = sum + update[r * shape.rank + k] * strip[k * kStripCols + j];
      }
      float& at = value[r * shape.stride + j];
      at = keep * at + scale * sum;
    }
  }
}

void ExpandAll(float* value, const ExpandShape& shape, const float* update, const float* strip,
               float keep, float scale) {
  constexpr int kRows = 4;
  int64_t row = 0;
  for (; row + kRows <= shape.rows; row += kRows) {
    Rows<kRows>(value + row * shape.stride, shape, update + row * shape.rank, strip, keep, scale);
  }
  for (; row < shape.rows; ++row) {
    Rows<1>(value + row * shape.stride, shape, update + row * shape.rank, strip, keep, scale);
  }
}

}  // namespace
}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(ExpandAll);

void ExpandStrip(float* value, const ExpandShape& shape, const float* update, const float* strip,
                 float keep, float scale) {
  HWY_DYNAMIC_DISPATCH(ExpandAll)(value, shape, update, strip, keep, scale);
}

void ExpandStripReference(float* value, const ExpandShape& shape, const float* update,
                          const float* strip, float keep, float scale) {
  for (int64_t i = 0; i < shape.rows; ++i) {
    for (int64_t j = 0; j < shape.cols; ++j) {
      float sum = 0.0f;
      for (int64_t k = 0; k < shape.rank; ++k) {
        sum = sum + update[i * shape.rank + k] * strip[k * kStripCols + j];
      }
      float& at = value[i * shape.stride + j];
      at = keep * at + scale * sum;
    }
  }
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
