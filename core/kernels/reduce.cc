#include "core/kernels/reduce.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/reduce.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: what follows is compiled once per target.
#include <cmath>

#include "core/base/status.h"
#include "core/kernels/device_kernels.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

bool AllFiniteT(const float* x, size_t n) {
  // The largest magnitude, compared as integers: above FLT_MAX's bits are only Inf and NaN.
  const hn::ScalableTag<int32_t> d;
  const size_t lanes = hn::Lanes(d);
  const auto magnitude = hn::Set(d, 0x7FFFFFFF);
  const auto load = [&](size_t i) {
    return hn::And(hn::LoadU(d, reinterpret_cast<const int32_t*>(x + i)), magnitude);
  };
  auto max0 = hn::Zero(d), max1 = hn::Zero(d), max2 = hn::Zero(d), max3 = hn::Zero(d);
  size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    max0 = hn::Max(max0, load(i));
    max1 = hn::Max(max1, load(i + lanes));
    max2 = hn::Max(max2, load(i + 2 * lanes));
    max3 = hn::Max(max3, load(i + 3 * lanes));
  }
  const auto max = hn::Max(hn::Max(max0, max1), hn::Max(max2, max3));
  bool finite = hn::AllFalse(d, max > hn::Set(d, 0x7F7FFFFF));
  for (; i < n; ++i) finite = finite && std::isfinite(x[i]);
  return finite;
}

// Lane structure as promised in reduce.h; term(x) maps doubles to what is summed.
template <class Term>
HWY_INLINE double FixedSum(const float* x, size_t n, Term term) {
  const hn::CappedTag<double, 8> d;
  const hn::Rebind<float, decltype(d)> df;
  constexpr size_t kLanes = hn::MaxLanes(d);
  constexpr size_t kParts = 16 / kLanes;
  hn::Vec<decltype(d)> sum[kParts];
  for (auto& s : sum) s = hn::Zero(d);
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t part = 0; part < kParts; ++part) {
      sum[part] = hn::Add(sum[part], term(hn::PromoteTo(d, hn::LoadU(df, x + i + part * kLanes))));
    }
  }
  HWY_ALIGN double lanes[16];
  for (size_t part = 0; part < kParts; ++part) hn::Store(sum[part], d, lanes + part * kLanes);
  HWY_ALIGN float rest[16] = {};
  const size_t left = n - i;
  for (size_t lane = 0; lane < left; ++lane) rest[lane] = x[i + lane];
  HWY_ALIGN double terms[16];
  for (size_t part = 0; part < kParts; ++part) {
    hn::Store(term(hn::PromoteTo(d, hn::Load(df, rest + part * kLanes))), d, terms + part * kLanes);
  }
  for (size_t lane = 0; lane < left; ++lane) lanes[lane] += terms[lane];
  for (size_t half = 8; half; half /= 2) {
    for (size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

// The product of two floats is exact in double: fused or not makes no difference.
double SumOfSquaresT(const float* x, size_t n) {
  return FixedSum(x, n, [](auto v) HWY_ATTR { return hn::Mul(v, v); });
}
double SumAbsT(const float* x, size_t n) {
  return FixedSum(x, n, [](auto v) HWY_ATTR { return hn::Abs(v); });
}

}  // namespace HWY_NAMESPACE
}  // namespace tw::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(AllFiniteT);
HWY_EXPORT(SumOfSquaresT);
HWY_EXPORT(SumAbsT);

bool AllFinite(std::span<const float> x) {
  TW_CHECK(!OnDevice());
  return HWY_DYNAMIC_DISPATCH(AllFiniteT)(x.data(), x.size());
}
double SumOfSquares(std::span<const float> x) {
  TW_CHECK(!OnDevice());
  return HWY_DYNAMIC_DISPATCH(SumOfSquaresT)(x.data(), x.size());
}
double SumAbs(std::span<const float> x) {
  TW_CHECK(!OnDevice());
  return HWY_DYNAMIC_DISPATCH(SumAbsT)(x.data(), x.size());
}
double MeanAbs(std::span<const float> x) {
  return x.empty() ? 0.0 : SumAbs(x) / static_cast<double>(x.size());
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
