// The vector form of random.h, for files that compile once per SIMD target. Include after
// hwy/highway.h; the guard toggles because foreach_target.h includes the user again and again.
#if defined(TW_KERNELS_RANDOM_SIMD_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TW_KERNELS_RANDOM_SIMD_H_
#undef TW_KERNELS_RANDOM_SIMD_H_
#else
#define TW_KERNELS_RANDOM_SIMD_H_
#endif

#include "core/kernels/random.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {

// ElementBits of the low indices in `index`.
template <class D, class V>
HWY_INLINE V ElementBitsV(D d, ElementKey key, V index) {
  namespace hn = hwy::HWY_NAMESPACE;
  V x = hn::Add(hn::Mul(index, hn::Set(d, kMixStride)), hn::Set(d, key.first));
  x = hn::Xor(x, hn::ShiftRight<16>(x));
  x = hn::Mul(x, hn::Set(d, kMixFirst));
  x = hn::Xor(x, hn::Xor(hn::ShiftRight<15>(x), hn::Set(d, key.second)));
  x = hn::Mul(x, hn::Set(d, kMixSecond));
  return hn::Xor(x, hn::ShiftRight<16>(x));
}

// CentredUniform of `bits` (vector of u32) as vector of DF.
template <class DF, class V>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<DF> CentredUniformV(DF df, V bits) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToUnsigned<DF> du;
  const V word =
      hn::Or(hn::And(hn::ShiftRight<9>(bits), hn::Set(du, 0x007FFF80u)), hn::Set(du, 0x3F800040u));
  return hn::Sub(hn::BitCast(df, word), hn::Set(df, 1.5f));
}

}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
