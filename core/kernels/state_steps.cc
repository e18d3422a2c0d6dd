#include "core/kernels/state_steps.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/state_steps.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: what follows is compiled once per target.
#include <algorithm>

#include "core/base/status.h"
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
    NibblePacker packer;
    for (size_t i = 0; i < 64; i += kStateLanes) {
      packer.Put(i, ToCode<kCode>(hn::Mul(hn::Load(d, x + half + i), factor)));
    }
    packer.Finish(codes + half / 2);
  }
}

// Decoded numbers i .. of a block of which only `size` elements exist; what pads it is zero and
// raises no scale.
template <Code4 kCode, bool kWhole>
HWY_INLINE StateV Unpack4(const uint8_t* codes, size_t i, size_t size, StateV scale) {
  const StateV x = hn::Mul(FromNibbles<kCode>(codes, i), scale);
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
  const StateV m_old = hn::Set(d, *m_scale), v_old = hn::Set(d, *v_scale);
  StateVi m_most = hn::Zero(StateDi()), v_most = m_most;
  for (size_t i = 0; i < kStateBlock4; i += kStateLanes) {
    StateV m = Unpack4<Code4::kDeSigned, kWhole>(m_codes, i, size, m_old);
    StateV v = Unpack4<Code4::kLinear, kWhole>(v_codes, i, size, v_old);
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
  const StateV old = hn::Set(d, *scale);
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

void AdamWAll8(float* p, const float* g, uint8_t* m_codes, float* m_scales, uint8_t* v_codes,
               float* v_scales, size_t n, const AdamWCoefficients<float>& c) {
  const StateD d;
  const AdamWVector rule(c);
  for (size_t i = 0; i < n; i += kStateBlock8, ++m_scales, ++v_scales) {
    const size_t size = std::min<size_t>(kStateBlock8, n - i);
    HWY_ALIGN float m_new[kStateBlock8], v_new[kStateBlock8];
    const StateV m_old = hn::Set(d, *m_scales), v_old = hn::Set(d, *v_scales);
    StateVi m_most = hn::Zero(StateDi()), v_most = m_most;
    size_t k = 0;
    const auto step = [&](float* pk, const float* gk, StateVi mc, StateVi vc) HWY_ATTR {
      StateV m = hn::Mul(FromCode8<Code8::kDeSigned>(mc), m_old);
      StateV v = hn::Mul(FromCode8<Code8::kDeUnsigned>(vc), v_old);
      hn::StoreU(rule.Step(hn::LoadU(d, pk), hn::LoadU(d, gk), m, v), d, pk);
      m_most = RaiseBits(m_most, m);
      v_most = RaiseBits(v_most, v);
      hn::Store(m, d, m_new + k);
      hn::Store(v, d, v_new + k);
    };
    for (; k + kStateLanes <= size; k += kStateLanes) {
      step(p + i + k, g + i + k, LoadCodes8(m_codes + i + k), LoadCodes8(v_codes + i + k));
    }
    const size_t left = size - k;
    if (left) {
      HWY_ALIGN float p_rest[8] = {}, g_rest[8] = {};
      HWY_ALIGN uint8_t m_rest[8], v_rest[8] = {};
      std::fill_n(m_rest, 8, uint8_t{127});  // zero
      std::copy_n(p + i + k, left, p_rest);
      std::copy_n(g + i + k, left, g_rest);
      std::copy_n(m_codes + i + k, left, m_rest);
      std::copy_n(v_codes + i + k, left, v_rest);
      step(p_rest, g_rest, LoadCodes8(m_rest), LoadCodes8(v_rest));
      std::copy_n(p_rest, left, p + i + k);
    }
    *m_scales = ScaleOf(m_most);
    *v_scales = ScaleOf(v_most);
    const StateV m_inverse = hn::Set(d, InverseOf(*m_scales));
    const StateV v_inverse = hn::Set(d, InverseOf(*v_scales));
    const auto m_code = [&](size_t at) HWY_ATTR {
      return ToCode8<Code8::kDeSigned>(hn::Mul(hn::Load(d, m_new + at), m_inverse));
    };
    const auto v_code = [&](size_t at) HWY_ATTR {
      return ToCode8<Code8::kDeUnsigned>(hn::Mul(hn::Load(d, v_new + at), v_inverse));
    };
    for (k = 0; k + kStateLanes <= size; k += kStateLanes) {
      StoreCodes8(m_code(k), m_codes + i + k);
      StoreCodes8(v_code(k), v_codes + i + k);
    }
    if (left) {
      HWY_ALIGN uint8_t rest[8];
      StoreCodes8(m_code(k), rest);
      std::copy_n(rest, left, m_codes + i + k);
      StoreCodes8(v_code(k), rest);
      std::copy_n(rest, left, v_codes + i + k);
    }
  }
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
  HWY_DYNAMIC_DISPATCH(AdamWAll4)
  (p.data(), g.data(), m.codes.data(), m.scales.data(), v.codes.data(), v.scales.data(), p.size(),
   c);
}

void AdamWStep8(std::span<float> p, std::span<const float> g, CodedMoment m, CodedMoment v,
                const AdamWCoefficients<float>& c) {
  for (const CodedMoment& moment : {m, v}) {
    Check(p.size(), g.size(), moment, static_cast<int64_t>(p.size()), kStateBlock8);
  }
  HWY_DYNAMIC_DISPATCH(AdamWAll8)
  (p.data(), g.data(), m.codes.data(), m.scales.data(), v.codes.data(), v.scales.data(), p.size(),
   c);
}

void SgdmStep4(std::span<float> p, std::span<const float> g, CodedMoment m,
               const SgdmCoefficients<float>& c) {
  Check(p.size(), g.size(), m, NibbleBytes(static_cast<int64_t>(p.size())), kStateBlock4);
  HWY_DYNAMIC_DISPATCH(SgdmAll4)
  (p.data(), g.data(), m.codes.data(), m.scales.data(), p.size(), c);
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
