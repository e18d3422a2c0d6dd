#include "core/kernels/product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/product.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: what follows is compiled once per target.
#include "core/base/status.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;

// to[0 .. kVectors*lanes) += sum over `count` terms of x[k * x_stride] * from[k * from_stride ...].
template <size_t kVectors>
HWY_INLINE void AddTerms(const float* HWY_RESTRICT x, size_t x_stride,
                         const float* HWY_RESTRICT from, size_t from_stride, size_t count,
                         float* HWY_RESTRICT to) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  auto s0 = hn::LoadU(d, to), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  if constexpr (kVectors == 8) {
    s1 = hn::LoadU(d, to + lanes);
    s2 = hn::LoadU(d, to + 2 * lanes);
    s3 = hn::LoadU(d, to + 3 * lanes);
    s4 = hn::LoadU(d, to + 4 * lanes);
    s5 = hn::LoadU(d, to + 5 * lanes);
    s6 = hn::LoadU(d, to + 6 * lanes);
    s7 = hn::LoadU(d, to + 7 * lanes);
  }
  for (size_t k = 0; k < count; ++k, x += x_stride, from += from_stride) {
    if (*x == 0) continue;
    const auto factor = hn::Set(d, *x);
    s0 = hn::Add(s0, hn::Mul(factor, hn::LoadU(d, from)));
    if constexpr (kVectors == 8) {
      s1 = hn::Add(s1, hn::Mul(factor, hn::LoadU(d, from + lanes)));
      s2 = hn::Add(s2, hn::Mul(factor, hn::LoadU(d, from + 2 * lanes)));
      s3 = hn::Add(s3, hn::Mul(factor, hn::LoadU(d, from + 3 * lanes)));
      s4 = hn::Add(s4, hn::Mul(factor, hn::LoadU(d, from + 4 * lanes)));
      s5 = hn::Add(s5, hn::Mul(factor, hn::LoadU(d, from + 5 * lanes)));
      s6 = hn::Add(s6, hn::Mul(factor, hn::LoadU(d, from + 6 * lanes)));
      s7 = hn::Add(s7, hn::Mul(factor, hn::LoadU(d, from + 7 * lanes)));
    }
  }
  hn::StoreU(s0, d, to);
  if constexpr (kVectors == 8) {
    hn::StoreU(s1, d, to + lanes);
    hn::StoreU(s2, d, to + 2 * lanes);
    hn::StoreU(s3, d, to + 3 * lanes);
    hn::StoreU(s4, d, to + 4 * lanes);
    hn::StoreU(s5, d, to + 5 * lanes);
    hn::StoreU(s6, d, to + 6 * lanes);
    hn::StoreU(s7, d, to + 7 * lanes);
  }
}

// One row of the result.
HWY_INLINE void AddRow(const float* HWY_RESTRICT x, size_t x_stride, const float* HWY_RESTRICT from,
                       size_t columns, size_t count, float* HWY_RESTRICT to) {
  const size_t lanes = hn::Lanes(D());
  size_t c = 0;
  for (; c + 8 * lanes <= columns; c += 8 * lanes) {
    AddTerms<8>(x, x_stride, from + c, columns, count, to + c);
  }
  for (; c + lanes <= columns; c += lanes) {
    AddTerms<1>(x, x_stride, from + c, columns, count, to + c);
  }
  for (; c < columns; ++c) {
    float sum = to[c];
    for (size_t k = 0; k < count; ++k) {
      if (x[k * x_stride] != 0) sum += x[k * x_stride] * from[k * columns + c];
    }
    to[c] = sum;
  }
}

void ProductAll(const float* x, const float* w, float* y, size_t rows, size_t inner,
                size_t columns) {
  for (size_t r = 0; r < rows; ++r) AddRow(x + r * inner, 1, w, columns, inner, y + r * columns);
}

void TransposedAll(const float* x, const float* y, float* w, size_t rows, size_t inner,
                   size_t columns) {
  for (size_t i = 0; i < inner; ++i) AddRow(x + i, inner, y, columns, rows, w + i * columns);
}

}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(ProductAll);
HWY_EXPORT(TransposedAll);

void AddProduct(std::span<const float> x, std::span<const float> w, std::span<float> y, size_t rows,
                size_t inner, size_t columns) {
  TW_CHECK(x.size() == rows * inner && w.size() == inner * columns && y.size() == rows * columns);
  HWY_DYNAMIC_DISPATCH(ProductAll)(x.data(), w.data(), y.data(), rows, inner, columns);
}

void AddTransposedProduct(std::span<const float> x, std::span<const float> y, std::span<float> w,
                          size_t rows, size_t inner, size_t columns) {
  TW_CHECK(x.size() == rows * inner && w.size() == inner * columns && y.size() == rows * columns);
  HWY_DYNAMIC_DISPATCH(TransposedAll)(x.data(), y.data(), w.data(), rows, inner, columns);
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
