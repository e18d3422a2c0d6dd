// The vector side of lowrank.h: blocks of rows by blocks of factors, so that a vector of M serves
// several factors and a vector of Q several rows.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/lowrank.cc"
#include "hwy/foreach_target.h"  // compiles what follows once per SIMD target
// foreach_target.h must come first
#include <algorithm>

#include "core/kernels/device_kernels.h"
#include "core/kernels/lowrank.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

constexpr int64_t kFactors = 4;
// Accumulators of a block of rows by factors fill the registers, and no more.
#if HWY_TARGET <= HWY_AVX3
constexpr int kProductRows = 4;
#else
constexpr int kProductRows = 2;
#endif

// Rows [row, row + kRows), factors [k0, k0 + kCount). `add`: perform the pending addition.
template <int kRows, int kCount>
void ProductBlock(const MessageView& message, const LowRankShape& shape, int64_t row, int64_t k0,
                  bool add, const float* HWY_RESTRICT qt, float* HWY_RESTRICT p) {
  const DF d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t cols = shape.cols;
  float* HWY_RESTRICT m = message.buffer.data() + row * cols;
  const float* HWY_RESTRICT g = add ? message.addend + row * cols : nullptr;
  const float* HWY_RESTRICT q = qt + k0 * cols;
  const VF scale = hn::Set(d, message.scale);
  VF sum[kRows][kCount];
  for (auto& of_row : sum) {
    for (VF& s : of_row) s = hn::Zero(d);
  }
  int64_t j = 0;
  for (; j + lanes <= cols; j += lanes) {
    VF x[kRows];
    for (int r = 0; r < kRows; ++r) {
      x[r] = hn::LoadU(d, m + r * cols + j);
      if (add) {
        x[r] = hn::Add(x[r], hn::Mul(scale, hn::LoadU(d, g + r * cols + j)));
        hn::StoreU(x[r], d, m + r * cols + j);
      }
    }
    for (int k = 0; k < kCount; ++k) {
      const VF factor = hn::LoadU(d, q + k * cols + j);
      for (int r = 0; r < kRows; ++r) sum[r][k] = hn::MulAdd(x[r], factor, sum[r][k]);
    }
  }
  float tail[kRows][kCount] = {};
  for (; j < cols; ++j) {
    for (int r = 0; r < kRows; ++r) {
      float& x = m[r * cols + j];
      if (add) x = x + message.scale * g[r * cols + j];
      for (int k = 0; k < kCount; ++k) tail[r][k] += x * q[k * cols + j];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int k = 0; k < kCount; ++k) {
      p[(row + r) * shape.rank + k0 + k] = hn::GetLane(hn::SumOfLanes(d, sum[r][k])) + tail[r][k];
    }
  }
}

template <int kRows>
void ProductRows(const MessageView& message, const LowRankShape& shape, int64_t row,
                 const float* qt, float* p) {
  bool add = message.addend != nullptr;
  for (int64_t k = 0; k < shape.rank; add = false) {
    const int64_t left = shape.rank - k;
    if (left >= kFactors) {
      ProductBlock<kRows, kFactors>(message, shape, row, k, add, qt, p);
      k += kFactors;
    } else if (left >= 2) {
      ProductBlock<kRows, 2>(message, shape, row, k, add, qt, p);
      k += 2;
    } else {
      ProductBlock<kRows, 1>(message, shape, row, k, add, qt, p);
      k += 1;
    }
  }
}

void ProductAll(const MessageView& message, const LowRankShape& shape, const float* qt, float* p) {
  int64_t row = 0;
  for (; row + kProductRows <= shape.rows; row += kProductRows) {
    ProductRows<kProductRows>(message, shape, row, qt, p);
  }
  for (; row < shape.rows; ++row) ProductRows<1>(message, shape, row, qt, p);
}

// qt[k0 .. k0 + kCount) += the part of rows [row, row + kRows).
template <int kRows, int kCount>
void TransposeBlock(const float* HWY_RESTRICT m, const LowRankShape& shape, int64_t row, int64_t k0,
                    const float* HWY_RESTRICT p, float* HWY_RESTRICT qt) {
  const DF d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t cols = shape.cols;
  m += row * cols;
  qt += k0 * cols;
  float factor[kRows][kCount];
  for (int r = 0; r < kRows; ++r) {
    for (int k = 0; k < kCount; ++k) factor[r][k] = p[(row + r) * shape.rank + k0 + k];
  }
  int64_t j = 0;
  for (; j + lanes <= cols; j += lanes) {
    VF sum[kCount];
    for (int k = 0; k < kCount; ++k) sum[k] = hn::LoadU(d, qt + k * cols + j);
    for (int r = 0; r < kRows; ++r) {
      const VF x = hn::LoadU(d, m + r * cols + j);
      for (int k = 0; k < kCount; ++k) {
        sum[k] = hn::MulAdd(hn::Set(d, factor[r][k]), x, sum[k]);
      }
    }
    for (int k = 0; k < kCount; ++k) hn::StoreU(sum[k], d, qt + k * cols + j);
  }
  for (; j < cols; ++j) {
    for (int k = 0; k < kCount; ++k) {
      float sum = qt[k * cols + j];
      for (int r = 0; r < kRows; ++r) sum += factor[r][k] * m[r * cols + j];
      qt[k * cols + j] = sum;
    }
  }
}

template <int kRows>
void TransposeRows(const float* m, const LowRankShape& shape, int64_t row, const float* p,
                   float* qt) {
  int64_t k = 0;
  for (; k + kFactors <= shape.rank; k += kFactors) {
    TransposeBlock<kRows, kFactors>(m, shape, row, k, p, qt);
  }
  for (; k < shape.rank; ++k) TransposeBlock<kRows, 1>(m, shape, row, k, p, qt);
}

void TransposeAll(const float* m, const LowRankShape& shape, const float* p, float* qt) {
  constexpr int kRows = 8;
  std::fill_n(qt, shape.rank * shape.cols, 0.0f);
  int64_t row = 0;
  for (; row + kRows <= shape.rows; row += kRows) TransposeRows<kRows>(m, shape, row, p, qt);
  for (; row < shape.rows; ++row) TransposeRows<1>(m, shape, row, p, qt);
}

// to += scale * value (kAdd), to -= value otherwise; no fused multiply-add: ranks must agree.
template <int kRows, bool kAdd>
void OuterRows(float* HWY_RESTRICT to, const LowRankShape& shape, int64_t row,
               const float* HWY_RESTRICT p, const float* HWY_RESTRICT qt, float scale) {
  const DF d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t cols = shape.cols;
  to += row * cols;
  p += row * shape.rank;
  const VF vscale = hn::Set(d, scale);
  int64_t j = 0;
  for (; j + lanes <= cols; j += lanes) {
    VF value[kRows];
    for (VF& v : value) v = hn::Zero(d);
    for (int64_t k = 0; k < shape.rank; ++k) {
      const VF factor = hn::LoadU(d, qt + k * cols + j);
      for (int r = 0; r < kRows; ++r) {
        value[r] = hn::Add(value[r], hn::Mul(hn::Set(d, p[r * shape.rank + k]), factor));
      }
    }
    for (int r = 0; r < kRows; ++r) {
      float* at = to + r * cols + j;
      const VF old = hn::LoadU(d, at);
      hn::StoreU(kAdd ? hn::Add(old, hn::Mul(vscale, value[r])) : hn::Sub(old, value[r]), d, at);
    }
  }
  for (; j < cols; ++j) {
    for (int r = 0; r < kRows; ++r) {
      float value = 0.0f;
      for (int64_t k = 0; k < shape.rank; ++k) {
        value = value + p[r * shape.rank + k] * qt[k * cols + j];
      }
      float& at = to[r * cols + j];
      at = kAdd ? at + scale * value : at - value;
    }
  }
}

template <bool kAdd>
void OuterAll(float* to, const LowRankShape& shape, const float* p, const float* qt, float scale) {
  constexpr int kRows = 4;
  int64_t row = 0;
  for (; row + kRows <= shape.rows; row += kRows) {
    OuterRows<kRows, kAdd>(to, shape, row, p, qt, scale);
  }
  for (; row < shape.rows; ++row) OuterRows<1, kAdd>(to, shape, row, p, qt, scale);
}

void OuterAddAll(float* out, const LowRankShape& shape, const float* p, const float* qt,
                 float scale) {
  OuterAll<true>(out, shape, p, qt, scale);
}
void OuterResidualAll(float* m, const LowRankShape& shape, const float* p, const float* qt) {
  OuterAll<false>(m, shape, p, qt, 1.0f);
}

}  // namespace
}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(ProductAll);
HWY_EXPORT(TransposeAll);
HWY_EXPORT(OuterAddAll);
HWY_EXPORT(OuterResidualAll);

void MaterializeTimesQ(const MessageView& message, const LowRankShape& shape, const float* qt,
                       float* p) {
  if (DeviceKernels* device = OnDevice()) return device->MaterializeTimesQ(message, shape, qt, p);
  HWY_DYNAMIC_DISPATCH(ProductAll)(message, shape, qt, p);
}
void TransposeTimesM(const float* m, const LowRankShape& shape, const float* p, float* qt) {
  if (DeviceKernels* device = OnDevice()) return device->TransposeTimesM(m, shape, p, qt);
  HWY_DYNAMIC_DISPATCH(TransposeAll)(m, shape, p, qt);
}
void OuterResidual(float* m, const LowRankShape& shape, const float* p, const float* qt) {
  if (DeviceKernels* device = OnDevice()) return device->OuterResidual(m, shape, p, qt);
  HWY_DYNAMIC_DISPATCH(OuterResidualAll)(m, shape, p, qt);
}
void OuterAdd(float* out, const LowRankShape& shape, const float* p, const float* qt, float scale) {
  if (DeviceKernels* device = OnDevice()) return device->OuterAdd(out, shape, p, qt, scale);
  HWY_DYNAMIC_DISPATCH(OuterAddAll)(out, shape, p, qt, scale);
}

}  // namespace tw::kernels
#endif
