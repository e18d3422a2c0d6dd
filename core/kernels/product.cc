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

// to[0 .. 8 * lanes) += sum over `count` terms of x[k * x_step] * from[k * from_step ...].
HWY_INLINE void AddTerms(const float* HWY_RESTRICT x, size_t x_step, const float* HWY_RESTRICT from,
                         size_t from_step, size_t count, float* HWY_RESTRICT to) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  auto s0 = hn::LoadU(d, to);
  auto s1 = hn::LoadU(d, to + lanes);
  auto s2 = hn::LoadU(d, to + 2 * lanes);
  auto s3 = hn::LoadU(d, to + 3 * lanes);
  auto s4 = hn::LoadU(d, to + 4 * lanes);
  auto s5 = hn::LoadU(d, to + 5 * lanes);
  auto s6 = hn::LoadU(d, to + 6 * lanes);
  auto s7 = hn::LoadU(d, to + 7 * lanes);
  for (size_t k = 0; k < count; ++k, x += x_step, from += from_step) {
    if (*x == 0) continue;
    const auto factor = hn::Set(d, *x);
    s0 = hn::Add(s0, hn::Mul(factor, hn::LoadU(d, from)));
    s1 = hn::Add(s1, hn::Mul(factor, hn::LoadU(d, from + lanes)));
    s2 = hn::Add(s2, hn::Mul(factor, hn::LoadU(d, from + 2 * lanes)));
    s3 = hn::Add(s3, hn::Mul(factor, hn::LoadU(d, from + 3 * lanes)));
    s4 = hn::Add(s4, hn::Mul(factor, hn::LoadU(d, from + 4 * lanes)));
    s5 = hn::Add(s5, hn::Mul(factor, hn::LoadU(d, from + 5 * lanes)));
    s6 = hn::Add(s6, hn::Mul(factor, hn::LoadU(d, from + 6 * lanes)));
    s7 = hn::Add(s7, hn::Mul(factor, hn::LoadU(d, from + 7 * lanes)));
  }
  hn::StoreU(s0, d, to);
  hn::StoreU(s1, d, to + lanes);
  hn::StoreU(s2, d, to + 2 * lanes);
  hn::StoreU(s3, d, to + 3 * lanes);
  hn::StoreU(s4, d, to + 4 * lanes);
  hn::StoreU(s5, d, to + 5 * lanes);
  hn::StoreU(s6, d, to + 6 * lanes);
  hn::StoreU(s7, d, to + 7 * lanes);
}

// The same for few columns, as many as `d` has lanes: kRows rows together, because one sum alone
// would wait for each of its additions. Rows of x lie x_row apart.
template <size_t kRows, class Tag>
HWY_INLINE void AddNarrow(Tag d, const float* HWY_RESTRICT x, size_t x_row, size_t x_step,
                          const float* HWY_RESTRICT from, size_t columns, size_t count,
                          float* HWY_RESTRICT to) {
  const auto zero = hn::Zero(d);
  auto s0 = hn::LoadU(d, to), s1 = s0, s2 = s0, s3 = s0;
  if constexpr (kRows == 4) {
    s1 = hn::LoadU(d, to + columns);
    s2 = hn::LoadU(d, to + 2 * columns);
    s3 = hn::LoadU(d, to + 3 * columns);
  }
  for (size_t k = 0; k < count; ++k, x += x_step, from += columns) {
    const auto values = hn::LoadU(d, from);
    const auto add = [&](const auto& sum, float factor) HWY_ATTR {
      const auto f = hn::Set(d, factor);
      // Not Ne: with AVX-512 that is false for NaN.
      return hn::IfThenElse(hn::Eq(f, zero), sum, hn::Add(sum, hn::Mul(f, values)));
    };
    s0 = add(s0, x[0]);
    if constexpr (kRows == 4) {
      s1 = add(s1, x[x_row]);
      s2 = add(s2, x[2 * x_row]);
      s3 = add(s3, x[3 * x_row]);
    }
  }
  hn::StoreU(s0, d, to);
  if constexpr (kRows == 4) {
    hn::StoreU(s1, d, to + columns);
    hn::StoreU(s2, d, to + 2 * columns);
    hn::StoreU(s3, d, to + 3 * columns);
  }
}

template <class Tag>
HWY_INLINE void AddNarrowRows(Tag d, const float* HWY_RESTRICT x, size_t x_row, size_t x_step,
                              const float* HWY_RESTRICT from, size_t rows, size_t columns,
                              size_t count, float* HWY_RESTRICT to) {
  size_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    AddNarrow<4>(d, x + r * x_row, x_row, x_step, from, columns, count, to + r * columns);
  }
  for (; r < rows; ++r) {
    AddNarrow<1>(d, x + r * x_row, x_row, x_step, from, columns, count, to + r * columns);
  }
}

// to[r][c] += sum over `count` terms of x[r * x_row + k * x_step] * from[k][c].
HWY_INLINE void AddRows(const float* HWY_RESTRICT x, size_t x_row, size_t x_step,
                        const float* HWY_RESTRICT from, size_t rows, size_t columns, size_t count,
                        float* HWY_RESTRICT to) {
  const D d;
  const hn::CappedTag<float, 1> one;
  const size_t lanes = hn::Lanes(d);
  size_t c = 0;
  for (; c + 8 * lanes <= columns; c += 8 * lanes) {
    for (size_t r = 0; r < rows; ++r) {
      AddTerms(x + r * x_row, x_step, from + c, columns, count, to + r * columns + c);
    }
  }
  for (; c + lanes <= columns; c += lanes) {
    AddNarrowRows(d, x, x_row, x_step, from + c, rows, columns, count, to + c);
  }
  for (; c < columns; ++c) {
    AddNarrowRows(one, x, x_row, x_step, from + c, rows, columns, count, to + c);
  }
}

void ProductAll(const float* x, const float* w, float* y, size_t rows, size_t inner,
                size_t columns) {
  AddRows(x, inner, 1, w, rows, columns, inner, y);
}

void TransposedAll(const float* x, const float* y, float* w, size_t rows, size_t inner,
                   size_t columns) {
  AddRows(x, 1, inner, y, inner, columns, rows, w);
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
