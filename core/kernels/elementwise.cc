#include "core/kernels/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/elementwise.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: what follows is compiled once per target.
#include <cstring>

#include "core/base/status.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/float16.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using U = hn::RebindToUnsigned<F>;
using I = hn::RebindToSigned<F>;
using H = hn::Rebind<uint16_t, F>;
using VF = hn::Vec<F>;
using VU = hn::Vec<U>;

// Conversions on 32-bit lanes that hold a 16-bit value.
struct Bf16 {
  static HWY_INLINE VF Widen(VU bits) { return hn::BitCast(F(), hn::ShiftLeft<16>(bits)); }
  template <bool kSaturate>
  static HWY_INLINE VU Narrow(VF value) {
    const U du;
    const VU u = hn::BitCast(du, value);
    const VU odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1));
    VU rounded = hn::ShiftRight<16>(hn::Add(u, hn::Add(odd, hn::Set(du, 0x7FFF))));
    const VU magnitude = hn::And(u, hn::Set(du, 0x7FFFFFFF));
    if (kSaturate) {
      const auto too_big = hn::And(SignedGreater(magnitude, 0x7F7F7FFF),
                                   hn::Not(SignedGreater(magnitude, 0x7F800000)));
      const VU sign = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 0x8000));
      rounded = hn::IfThenElse(too_big, hn::Or(sign, hn::Set(du, 0x7F7F)), rounded);
    }
    const VU nan = hn::Or(hn::ShiftRight<16>(u), hn::Set(du, 0x40));
    return hn::IfThenElse(SignedGreater(magnitude, 0x7F800000), nan, rounded);
  }
  static HWY_INLINE hn::Mask<U> SignedGreater(VU a, int32_t b) {
    return hn::RebindMask(U(), hn::BitCast(I(), a) > hn::Set(I(), b));
  }
  static float WidenOne(uint16_t bits) { return Bf16ToFloat(bits); }
  static uint16_t NarrowOne(float value, bool saturate) {
    return saturate ? FloatToBf16Saturated(value) : FloatToBf16(value);
  }
};

struct Half {
  static HWY_INLINE VF Widen(VU bits) {
    const U du;
    const VU sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000)));
    const VU exponent_mantissa = hn::And(bits, hn::Set(du, 0x7FFF));
    const VU shifted = hn::ShiftLeft<13>(exponent_mantissa);
    const VU normal = hn::Add(shifted, hn::Set(du, 112u << 23));
    // Inf and NaN: the exponent 31 + 112 becomes 255.
    const VU special = hn::Add(shifted, hn::Set(du, 224u << 23));
    const VF small =
        hn::Mul(hn::ConvertTo(F(), hn::BitCast(I(), exponent_mantissa)), hn::Set(F(), 0x1.0p-24f));
    VU out = hn::IfThenElse(Bf16::SignedGreater(exponent_mantissa, 0x7BFF), special, normal);
    out =
        hn::IfThenElse(Bf16::SignedGreater(exponent_mantissa, 0x03FF), out, hn::BitCast(du, small));
    return hn::BitCast(F(), hn::Or(out, sign));
  }
  template <bool kSaturate>
  static HWY_INLINE VU Narrow(VF value) {
    const U du;
    const VU u = hn::BitCast(du, value);
    const VU sign = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 0x8000));
    const VU magnitude = hn::And(u, hn::Set(du, 0x7FFFFFFF));
    const VU odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1));
    const VU rounded = hn::Add(magnitude, hn::Add(odd, hn::Set(du, 0xFFF)));
    VU out = hn::ShiftRight<13>(hn::Sub(rounded, hn::Set(du, 0x38000000)));
    // Multiples of 2^-24 below 2^-14, see FloatToHalf.
    const VU small =
        hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(F(), magnitude), hn::Set(F(), 0.5f))),
                hn::Set(du, 0x3F000000));
    out = hn::IfThenElse(Bf16::SignedGreater(magnitude, 0x387FFFFF), out, small);
    out = hn::IfThenElse(Bf16::SignedGreater(magnitude, 0x477FEFFF),
                         hn::Set(du, kSaturate ? 0x7BFF : 0x7C00), out);
    out = hn::IfThenElse(Bf16::SignedGreater(magnitude, 0x7F800000), hn::Set(du, 0x7E00), out);
    return hn::Or(out, sign);
  }
  static float WidenOne(uint16_t bits) { return HalfToFloat(bits); }
  static uint16_t NarrowOne(float value, bool saturate) {
    return saturate ? FloatToHalfSaturated(value) : FloatToHalf(value);
  }
};

HWY_INLINE VU Load16(const uint16_t* from) { return hn::PromoteTo(U(), hn::LoadU(H(), from)); }
// Single elements through memcpy: bodies are bytes at any address.
HWY_INLINE uint16_t Get16(const uint16_t* from) {
  uint16_t bits;
  std::memcpy(&bits, reinterpret_cast<const uint8_t*>(from), sizeof(bits));
  return bits;
}
HWY_INLINE void Put16(uint16_t bits, uint16_t* to) {
  std::memcpy(reinterpret_cast<uint8_t*>(to), &bits, sizeof(bits));
}
// Lanes hold at most 0xFFFF, so the saturating demotion keeps them.
HWY_INLINE void Store16(VU bits, uint16_t* to) {
  hn::StoreU(hn::DemoteTo(H(), hn::BitCast(I(), bits)), H(), to);
}

void AddFromBytesT(float* HWY_RESTRICT a, float s, const uint8_t* HWY_RESTRICT b, size_t n) {
  const F d;
  const auto vs = hn::Set(d, s);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto vb = hn::LoadU(d, reinterpret_cast<const float*>(b + i * sizeof(float)));
    hn::StoreU(hn::Add(hn::LoadU(d, a + i), hn::Mul(vs, vb)), d, a + i);
  }
  for (; i < n; ++i) {
    float one;
    std::memcpy(&one, b + i * sizeof(float), sizeof(one));
    a[i] += s * one;
  }
}

void MoveOutT(float* HWY_RESTRICT buffer, const float* HWY_RESTRICT addend, float s,
              uint8_t* HWY_RESTRICT to, size_t n) {
  const F d;
  const auto vs = hn::Set(d, s);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    auto m = hn::LoadU(d, buffer + i);
    if (addend) m = hn::Add(m, hn::Mul(vs, hn::LoadU(d, addend + i)));
    hn::StoreU(m, d, reinterpret_cast<float*>(to + i * sizeof(float)));
    hn::StoreU(hn::Zero(d), d, buffer + i);
  }
  for (; i < n; ++i) {
    const float m = addend ? buffer[i] + s * addend[i] : buffer[i];
    std::memcpy(to + i * sizeof(float), &m, sizeof(m));
    buffer[i] = 0;
  }
}

void ScaleT(float* a, float s, size_t n) {
  const F d;
  const auto vs = hn::Set(d, s);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    hn::StoreU(hn::Mul(hn::LoadU(d, a + i), vs), d, a + i);
  }
  for (; i < n; ++i) a[i] *= s;
}

void AddBytesT(uint8_t* HWY_RESTRICT a, const uint8_t* HWY_RESTRICT b, size_t n) {
  const hn::ScalableTag<uint8_t> d;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    hn::StoreU(hn::Add(hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, a + i);
  }
  for (; i < n; ++i) a[i] = static_cast<uint8_t>(a[i] + b[i]);
}
void TakeLargerT(float* HWY_RESTRICT a, const float* HWY_RESTRICT b, size_t n) {
  const F d;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto x = hn::LoadU(d, a + i), y = hn::LoadU(d, b + i);
    hn::StoreU(hn::IfThenElse(hn::Lt(x, y), y, x), d, a + i);
  }
  for (; i < n; ++i) a[i] = a[i] < b[i] ? b[i] : a[i];
}
void ZeroWhereT(float* HWY_RESTRICT a, const float* HWY_RESTRICT b, size_t n) {
  const F d;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto keep = hn::Eq(hn::LoadU(d, b + i), hn::Zero(d));
    hn::StoreU(hn::IfThenElseZero(keep, hn::LoadU(d, a + i)), d, a + i);
  }
  for (; i < n; ++i) a[i] = b[i] == 0 ? a[i] : 0;
}

template <class Type>
void AddFrom(float* HWY_RESTRICT a, float s, const uint16_t* HWY_RESTRICT b, size_t n) {
  const F d;
  const auto vs = hn::Set(d, s);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    hn::StoreU(hn::Add(hn::LoadU(d, a + i), hn::Mul(vs, Type::Widen(Load16(b + i)))), d, a + i);
  }
  for (; i < n; ++i) a[i] += s * Type::WidenOne(Get16(b + i));
}

template <class Type>
void ConvertFrom(const uint16_t* HWY_RESTRICT from, float* HWY_RESTRICT to, size_t n) {
  const F d;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    hn::StoreU(Type::Widen(Load16(from + i)), d, to + i);
  }
  for (; i < n; ++i) to[i] = Type::WidenOne(Get16(from + i));
}

template <class Type, bool kSaturate>
void ConvertTo(const float* HWY_RESTRICT from, uint16_t* HWY_RESTRICT to, size_t n) {
  const F d;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    Store16(Type::template Narrow<kSaturate>(hn::LoadU(d, from + i)), to + i);
  }
  for (; i < n; ++i) Put16(Type::NarrowOne(from[i], kSaturate), to + i);
}

template <class Type>
void CastResidual(float* HWY_RESTRICT buffer, const float* HWY_RESTRICT addend, float s, float pre,
                  float post, uint16_t* HWY_RESTRICT to, size_t n) {
  const F d;
  const auto vs = hn::Set(d, s);
  const auto vpre = hn::Set(d, pre);
  const auto vpost = hn::Set(d, post);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    auto m = hn::LoadU(d, buffer + i);
    if (addend) m = hn::Add(m, hn::Mul(vs, hn::LoadU(d, addend + i)));
    const auto bits = Type::template Narrow<true>(hn::Mul(m, vpre));
    Store16(bits, to + i);
    hn::StoreU(hn::Sub(m, hn::Mul(vpost, Type::Widen(bits))), d, buffer + i);
  }
  for (; i < n; ++i) {
    const float m = addend ? buffer[i] + s * addend[i] : buffer[i];
    const uint16_t bits = Type::NarrowOne(m * pre, true);
    Put16(bits, to + i);
    buffer[i] = m - post * Type::WidenOne(bits);
  }
}

void AddFromBf16T(float* a, float s, const uint16_t* b, size_t n) { AddFrom<Bf16>(a, s, b, n); }
void AddFromHalfT(float* a, float s, const uint16_t* b, size_t n) { AddFrom<Half>(a, s, b, n); }
void FromBf16T(const uint16_t* from, float* to, size_t n) { ConvertFrom<Bf16>(from, to, n); }
void FromHalfT(const uint16_t* from, float* to, size_t n) { ConvertFrom<Half>(from, to, n); }
void ToBf16T(const float* from, uint16_t* to, size_t n) { ConvertTo<Bf16, false>(from, to, n); }
void ToHalfT(const float* from, uint16_t* to, size_t n) { ConvertTo<Half, true>(from, to, n); }
void CastResidualBf16T(float* buffer, const float* addend, float s, float pre, float post,
                       uint16_t* to, size_t n) {
  CastResidual<Bf16>(buffer, addend, s, pre, post, to, n);
}
void CastResidualHalfT(float* buffer, const float* addend, float s, float pre, float post,
                       uint16_t* to, size_t n) {
  CastResidual<Half>(buffer, addend, s, pre, post, to, n);
}

}  // namespace HWY_NAMESPACE
}  // namespace tw::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(AddFromBytesT);
HWY_EXPORT(MoveOutT);
HWY_EXPORT(ScaleT);
HWY_EXPORT(AddBytesT);
HWY_EXPORT(TakeLargerT);
HWY_EXPORT(ZeroWhereT);
HWY_EXPORT(AddFromBf16T);
HWY_EXPORT(AddFromHalfT);
HWY_EXPORT(FromBf16T);
HWY_EXPORT(FromHalfT);
HWY_EXPORT(ToBf16T);
HWY_EXPORT(ToHalfT);
HWY_EXPORT(CastResidualBf16T);
HWY_EXPORT(CastResidualHalfT);

void AddInPlace(std::span<float> a, float s, std::span<const float> b) {
  TW_CHECK_EQ(a.size(), b.size());
  AddFromBytes(a, s, reinterpret_cast<const uint8_t*>(b.data()));
}
void AddFromBytes(std::span<float> a, float s, const uint8_t* b) {
  if (DeviceKernels* device = OnDevice()) return device->AddFromBytes(a, s, b);
  HWY_DYNAMIC_DISPATCH(AddFromBytesT)(a.data(), s, b, a.size());
}
void AddBytes(std::span<uint8_t> a, std::span<const uint8_t> b) {
  if (DeviceKernels* device = OnDevice()) return device->AddBytes(a, b);
  TW_CHECK_EQ(a.size(), b.size());
  HWY_DYNAMIC_DISPATCH(AddBytesT)(a.data(), b.data(), a.size());
}
void TakeLarger(std::span<float> a, std::span<const float> b) {
  if (DeviceKernels* device = OnDevice()) return device->TakeLarger(a, b);
  TW_CHECK_EQ(a.size(), b.size());
  HWY_DYNAMIC_DISPATCH(TakeLargerT)(a.data(), b.data(), a.size());
}
void ZeroWhere(std::span<float> a, std::span<const float> b) {
  if (DeviceKernels* device = OnDevice()) return device->ZeroWhere(a, b);
  TW_CHECK_EQ(a.size(), b.size());
  HWY_DYNAMIC_DISPATCH(ZeroWhereT)(a.data(), b.data(), a.size());
}
void MoveOut(std::span<float> buffer, const float* addend, float s, uint8_t* to) {
  if (DeviceKernels* device = OnDevice()) return device->MoveOut(buffer, addend, s, to);
  HWY_DYNAMIC_DISPATCH(MoveOutT)(buffer.data(), addend, s, to, buffer.size());
}
void Scale(std::span<float> a, float s) {
  if (DeviceKernels* device = OnDevice()) return device->Scale(a, s);
  HWY_DYNAMIC_DISPATCH(ScaleT)(a.data(), s, a.size());
}
void AddFromBf16(std::span<float> a, float s, std::span<const uint16_t> b) {
  if (DeviceKernels* device = OnDevice()) return device->AddFromBf16(a, s, b);
  TW_CHECK_EQ(a.size(), b.size());
  HWY_DYNAMIC_DISPATCH(AddFromBf16T)(a.data(), s, b.data(), a.size());
}
void AddFromHalf(std::span<float> a, float s, std::span<const uint16_t> b) {
  if (DeviceKernels* device = OnDevice()) return device->AddFromHalf(a, s, b);
  TW_CHECK_EQ(a.size(), b.size());
  HWY_DYNAMIC_DISPATCH(AddFromHalfT)(a.data(), s, b.data(), a.size());
}
void ConvertFromBf16(std::span<const uint16_t> from, std::span<float> to) {
  if (DeviceKernels* device = OnDevice()) return device->ConvertFromBf16(from, to);
  TW_CHECK_EQ(from.size(), to.size());
  HWY_DYNAMIC_DISPATCH(FromBf16T)(from.data(), to.data(), to.size());
}
void ConvertFromHalf(std::span<const uint16_t> from, std::span<float> to) {
  if (DeviceKernels* device = OnDevice()) return device->ConvertFromHalf(from, to);
  TW_CHECK_EQ(from.size(), to.size());
  HWY_DYNAMIC_DISPATCH(FromHalfT)(from.data(), to.data(), to.size());
}
void ConvertToBf16(std::span<const float> from, std::span<uint16_t> to) {
  if (DeviceKernels* device = OnDevice()) return device->ConvertToBf16(from, to);
  TW_CHECK_EQ(from.size(), to.size());
  HWY_DYNAMIC_DISPATCH(ToBf16T)(from.data(), to.data(), to.size());
}
void ConvertToHalf(std::span<const float> from, std::span<uint16_t> to) {
  if (DeviceKernels* device = OnDevice()) return device->ConvertToHalf(from, to);
  TW_CHECK_EQ(from.size(), to.size());
  HWY_DYNAMIC_DISPATCH(ToHalfT)(from.data(), to.data(), to.size());
}
void CastResidualBf16(std::span<float> buffer, const float* addend, float s, float pre, float post,
                      std::span<uint16_t> to) {
  if (DeviceKernels* device = OnDevice()) {
    return device->CastResidualBf16(buffer, addend, s, pre, post, to);
  }
  TW_CHECK_EQ(buffer.size(), to.size());
  HWY_DYNAMIC_DISPATCH(CastResidualBf16T)
  (buffer.data(), addend, s, pre, post, to.data(), to.size());
}
void CastResidualHalf(std::span<float> buffer, const float* addend, float s, float pre, float post,
                      std::span<uint16_t> to) {
  if (DeviceKernels* device = OnDevice()) {
    return device->CastResidualHalf(buffer, addend, s, pre, post, to);
  }
  TW_CHECK_EQ(buffer.size(), to.size());
  HWY_DYNAMIC_DISPATCH(CastResidualHalfT)
  (buffer.data(), addend, s, pre, post, to.data(), to.size());
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
