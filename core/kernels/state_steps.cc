#include "core/kernels/state_steps.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/state_steps.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: what follows is compiled once per target.
#include <algorithm>

#include "core/base/status.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/state_codes_simd.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {

// AdamWElement of one vector, m and v in registers; returns the new parameter.
struct AdamWVector {
  explicit AdamWVector(const AdamWCoefficients<float>& c) {
    const StateD d;
    grad_scale = hn::Set(d, c.grad_scale), decay = hn::Set(d, c.decay);
    beta1 = hn::Set(d, c.beta1), rest1 = hn::Set(d, c.rest1);
    beta2 = hn::Set(d, c.beta2), rest2 = hn::Set(d, c.rest2);
    step_size = hn::Set(d, c.step_size), eps = hn::Set(d, c.eps);
    inverse_root_bias = hn::Set(d, c.inverse_root_bias);
  }
  HWY_INLINE StateV Step(StateV p, StateV g, StateV& m, StateV& v) const {
    const StateV gi = hn::Mul(g, grad_scale);
    m = hn::Add(hn::Mul(beta1, m), hn::Mul(rest1, gi));
    v = hn::Add(hn::Mul(beta2, v), hn::Mul(rest2, hn::Mul(gi, gi)));
    const StateV denominator = hn::Add(hn::Mul(hn::Sqrt(v), inverse_root_bias), eps);
    return hn::Sub(hn::Mul(p, decay), hn::Mul(step_size, hn::Div(m, denominator)));
  }
  StateV grad_scale, decay, beta1, rest1, beta2, rest2, step_size, eps, inverse_root_bias;
};

struct SgdmVector {
  explicit SgdmVector(const SgdmCoefficients<float>& c) : nesterov(c.nesterov) {
    const StateD d;
    grad_scale = hn::Set(d, c.grad_scale), weight_decay = hn::Set(d, c.weight_decay);
    momentum = hn::Set(d, c.momentum), lr = hn::Set(d, c.lr);
  }
  HWY_INLINE StateV Step(StateV p, StateV g, StateV& m) const {
    const StateV gi = hn::Add(hn::Mul(g, grad_scale), hn::Mul(weight_decay, p));
    m = hn::Add(hn::Mul(momentum, m), gi);
    const StateV direction = nesterov ? hn::Add(gi, hn::Mul(momentum, m)) : m;
    return hn::Sub(p, hn::Mul(lr, direction));
  }
  StateV grad_scale, weight_decay, momentum, lr;
  bool nesterov;
};

// Encodes a block of `x`.
template <Code4 kCode>
HWY_INLINE void Pack4(const float* x, float inverse, uint8_t* codes) {
  const StateD d;
  const StateV factor = hn::Set(d, inverse);
  for (size_t half = 0; half < kStateBlock4; half += 64) {
    PackNibbles<kCode>([&](size_t i)
                           HWY_ATTR { return hn::Mul(hn::Load(d, x + half + i), factor); },
                       codes + half / 2);
  }
}

// Decoded numbers i .. of a block of which only `size` elements exist; what pads it is zero and
// raises no scale.
template <Code4 kCode, bool kWhole>
HWY_INLINE StateV Unpack4(const uint8_t* codes, size_t i, size_t size,
                          const ScaledBook<kCode>& book) {
  const StateV x = book.At(codes, i);
  if constexpr (kWhole) return x;
  return hn::IfThenElseZero(hn::FirstN(StateD(), i < size ? size - i : 0), x);
}

// Copies of what is left of a tensor when no whole block is, and back.
struct RestBlock {
  RestBlock(const float* p, const float* g, size_t size) : size(size) {
    std::copy_n(p, size, p_block);
    std::copy_n(g, size, g_block);
  }
  void Take(const uint8_t* codes, uint8_t* block) const {
    std::copy_n(codes, (size + 1) / 2, block);
  }
  void Give(uint8_t* block, uint8_t* codes) const {
    if (size % 2) block[size / 2] &= 0x0F;
    std::copy_n(block, (size + 1) / 2, codes);
  }
  size_t size;
  HWY_ALIGN float p_block[kStateBlock4] = {};
  HWY_ALIGN float g_block[kStateBlock4] = {};
  HWY_ALIGN uint8_t m_block[kStateBlock4 / 2] = {};
  HWY_ALIGN uint8_t v_block[kStateBlock4 / 2] = {};
};

template <bool kWhole>
HWY_INLINE void AdamWBlock4(float* p, const float* g, uint8_t* m_codes, float* m_scale,
                            uint8_t* v_codes, float* v_scale, size_t size,
                            const AdamWVector& rule) {
  const StateD d;
  HWY_ALIGN float m_new[kStateBlock4], v_new[kStateBlock4];
  const ScaledBook<Code4::kDeSigned> m_old(*m_scale);
  const ScaledBook<Code4::kLinear> v_old(*v_scale);
  for (size_t i = 0; i < kStateBlock4; i += kStateLanes) {
    hn::Store(Unpack4<Code4::kDeSigned, kWhole>(m_codes, i, size, m_old), d, m_new + i);
    hn::Store(Unpack4<Code4::kLinear, kWhole>(v_codes, i, size, v_old), d, v_new + i);
  }
  StateVi m_most = hn::Zero(StateDi()), v_most = m_most;
  for (size_t i = 0; i < kStateBlock4; i += kStateLanes) {
    StateV m = hn::Load(d, m_new + i), v = hn::Load(d, v_new + i);
    hn::StoreU(rule.Step(hn::LoadU(d, p + i), hn::LoadU(d, g + i), m, v), d, p + i);
    m_most = RaiseBits(m_most, m);
    v_most = RaiseBits(v_most, v);
    hn::Store(m, d, m_new + i);
    hn::Store(v, d, v_new + i);
  }
  *m_scale = ScaleOf(m_most);
  *v_scale = ScaleOf(v_most);
  Pack4<Code4::kDeSigned>(m_new, InverseOf(*m_scale), m_codes);
  Pack4<Code4::kLinear>(v_new, InverseOf(*v_scale), v_codes);
}

void AdamWAll4(float* p, const float* g, uint8_t* m_codes, float* m_scales, uint8_t* v_codes,
               float* v_scales, size_t n, const AdamWCoefficients<float>& c) {
  const AdamWVector rule(c);
  size_t i = 0;
  for (; i + kStateBlock4 <= n; i += kStateBlock4) {
    AdamWBlock4<true>(p + i, g + i, m_codes + i / 2, m_scales++, v_codes + i / 2, v_scales++,
                      kStateBlock4, rule);
  }
  if (i == n) return;
  RestBlock rest(p + i, g + i, n - i);
  rest.Take(m_codes + i / 2, rest.m_block);
  rest.Take(v_codes + i / 2, rest.v_block);
  AdamWBlock4<false>(rest.p_block, rest.g_block, rest.m_block, m_scales, rest.v_block, v_scales,
                     rest.size, rule);
  std::copy_n(rest.p_block, rest.size, p + i);
  rest.Give(rest.m_block, m_codes + i / 2);
  rest.Give(rest.v_block, v_codes + i / 2);
}

template <bool kWhole>
HWY_INLINE void SgdmBlock4(float* p, const float* g, uint8_t* codes, float* scale, size_t size,
                           const SgdmVector& rule) {
  const StateD d;
  HWY_ALIGN float m_new[kStateBlock4];
  const ScaledBook<Code4::kDeSigned> old(*scale);
  StateVi most = hn::Zero(StateDi());
  for (size_t i = 0; i < kStateBlock4; i += kStateLanes) {
    StateV m = Unpack4<Code4::kDeSigned, kWhole>(codes, i, size, old);
    hn::StoreU(rule.Step(hn::LoadU(d, p + i), hn::LoadU(d, g + i), m), d, p + i);
    most = RaiseBits(most, m);
    hn::Store(m, d, m_new + i);
  }
  *scale = ScaleOf(most);
  Pack4<Code4::kDeSigned>(m_new, InverseOf(*scale), codes);
}

void SgdmAll4(float* p, const float* g, uint8_t* codes, float* scales, size_t n,
              const SgdmCoefficients<float>& c) {
  const SgdmVector rule(c);
  size_t i = 0;
  for (; i + kStateBlock4 <= n; i += kStateBlock4) {
    SgdmBlock4<true>(p + i, g + i, codes + i / 2, scales++, kStateBlock4, rule);
  }
  if (i == n) return;
  RestBlock rest(p + i, g + i, n - i);
  rest.Take(codes + i / 2, rest.m_block);
  SgdmBlock4<false>(rest.p_block, rest.g_block, rest.m_block, scales, rest.size, rule);
  std::copy_n(rest.p_block, rest.size, p + i);
  rest.Give(rest.m_block, codes + i / 2);
}

// Encodes a block of `x`.
template <Code8 kCode>
HWY_INLINE void Pack8(const float* x, float inverse, uint8_t* codes) {
  const StateD d;
  const StateV factor = hn::Set(d, inverse);
  for (size_t from = 0; from < kStateBlock8; from += 32) {
    PackBytes<kCode>([&](size_t i) HWY_ATTR { return hn::Mul(hn::Load(d, x + from + i), factor); },
                     codes + from);
  }
}

HWY_INLINE void AdamWBlock8(float* p, const float* g, uint8_t* m_codes, float* m_scale,
                            uint8_t* v_codes, float* v_scale, const AdamWVector& rule) {
  const StateD d;
  HWY_ALIGN float m_new[kStateBlock8], v_new[kStateBlock8];
  const ScaledDecades<Code8::kDeSigned> m_old(*m_scale);
  const ScaledDecades<Code8::kDeUnsigned> v_old(*v_scale);
  for (size_t i = 0; i < kStateBlock8; i += kStateLanes) {
    hn::Store(m_old.At(m_codes + i), d, m_new + i);
    hn::Store(v_old.At(v_codes + i), d, v_new + i);
  }
  StateVi m_most = hn::Zero(StateDi()), v_most = m_most;
  for (size_t i = 0; i < kStateBlock8; i += kStateLanes) {
    StateV m = hn::Load(d, m_new + i), v = hn::Load(d, v_new + i);
    hn::StoreU(rule.Step(hn::LoadU(d, p + i), hn::LoadU(d, g + i), m, v), d, p + i);
    m_most = RaiseBits(m_most, m);
    v_most = RaiseBits(v_most, v);
    hn::Store(m, d, m_new + i);
    hn::Store(v, d, v_new + i);
  }
  *m_scale = ScaleOf(m_most);
  *v_scale = ScaleOf(v_most);
  Pack8<Code8::kDeSigned>(m_new, InverseOf(*m_scale), m_codes);
  Pack8<Code8::kDeUnsigned>(v_new, InverseOf(*v_scale), v_codes);
}

void AdamWAll8(float* p, const float* g, uint8_t* m_codes, float* m_scales, uint8_t* v_codes,
               float* v_scales, size_t n, const AdamWCoefficients<float>& c) {
  const AdamWVector rule(c);
  size_t i = 0;
  for (; i + kStateBlock8 <= n; i += kStateBlock8) {
    AdamWBlock8(p + i, g + i, m_codes + i, m_scales++, v_codes + i, v_scales++, rule);
  }
  if (i == n) return;
  // The codes of zero and zero gradients pad the rest.
  const size_t size = n - i;
  HWY_ALIGN float p_block[kStateBlock8] = {}, g_block[kStateBlock8] = {};
  HWY_ALIGN uint8_t m_block[kStateBlock8], v_block[kStateBlock8] = {};
  std::fill_n(m_block, kStateBlock8, uint8_t{127});
  std::copy_n(p + i, size, p_block);
  std::copy_n(g + i, size, g_block);
  std::copy_n(m_codes + i, size, m_block);
  std::copy_n(v_codes + i, size, v_block);
  AdamWBlock8(p_block, g_block, m_block, m_scales, v_block, v_scales, rule);
  std::copy_n(p_block, size, p + i);
  std::copy_n(m_block, size, m_codes + i);
  std::copy_n(v_block, size, v_codes + i);
}

}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(AdamWAll4);
HWY_EXPORT(AdamWAll8);
HWY_EXPORT(SgdmAll4);

namespace {

void Check(size_t n, size_t g, const CodedMoment& moment, int64_t code_bytes, int64_t block) {
  TW_CHECK_EQ(n, g);
  TW_CHECK_EQ(static_cast<int64_t>(moment.codes.size()), code_bytes);
  TW_CHECK_EQ(static_cast<int64_t>(moment.scales.size()), Blocks(static_cast<int64_t>(n), block));
}

}  // namespace

void AdamWStep4(std::span<float> p, std::span<const float> g, CodedMoment m, CodedMoment v,
                const AdamWCoefficients<float>& c) {
  for (const CodedMoment& moment : {m, v}) {
    Check(p.size(), g.size(), moment, NibbleBytes(static_cast<int64_t>(p.size())), kStateBlock4);
  }
  if (DeviceKernels* device = OnDevice()) return device->AdamWStep4(p, g, m, v, c);
  HWY_DYNAMIC_DISPATCH(AdamWAll4)
  (p.data(), g.data(), m.codes.data(), m.scales.data(), v.codes.data(), v.scales.data(), p.size(),
   c);
}

void AdamWStep8(std::span<float> p, std::span<const float> g, CodedMoment m, CodedMoment v,
                const AdamWCoefficients<float>& c) {
  for (const CodedMoment& moment : {m, v}) {
    Check(p.size(), g.size(), moment, static_cast<int64_t>(p.size()), kStateBlock8);
  }
  if (DeviceKernels* device = OnDevice()) return device->AdamWStep8(p, g, m, v, c);
  HWY_DYNAMIC_DISPATCH(AdamWAll8)
  (p.data(), g.data(), m.codes.data(), m.scales.data(), v.codes.data(), v.scales.data(), p.size(),
   c);
}

void SgdmStep4(std::span<float> p, std::span<const float> g, CodedMoment m,
               const SgdmCoefficients<float>& c) {
  Check(p.size(), g.size(), m, NibbleBytes(static_cast<int64_t>(p.size())), kStateBlock4);
  if (DeviceKernels* device = OnDevice()) return device->SgdmStep4(p, g, m, c);
  HWY_DYNAMIC_DISPATCH(SgdmAll4)
  (p.data(), g.data(), m.codes.data(), m.scales.data(), p.size(), c);
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
