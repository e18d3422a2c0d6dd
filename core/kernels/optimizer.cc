#include "core/kernels/optimizer.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/optimizer.cc"
#include "core/kernels/device_kernels.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The loops below are AdamWElement, SgdElement and SgdmElement, operation by operation; the last
// elements that fill no vector go through those functions themselves.

void AdamWAll(float* p, const float* g, float* m, float* v, size_t n,
              const AdamWCoefficients<float>& c) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto grad_scale = hn::Set(d, c.grad_scale), decay = hn::Set(d, c.decay);
  const auto beta1 = hn::Set(d, c.beta1), rest1 = hn::Set(d, c.rest1);
  const auto beta2 = hn::Set(d, c.beta2), rest2 = hn::Set(d, c.rest2);
  const auto step_size = hn::Set(d, c.step_size), eps = hn::Set(d, c.eps);
  const auto inverse_root_bias = hn::Set(d, c.inverse_root_bias);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto gi = hn::Mul(hn::LoadU(d, g + i), grad_scale);
    const auto mi = hn::Add(hn::Mul(beta1, hn::LoadU(d, m + i)), hn::Mul(rest1, gi));
    const auto vi = hn::Add(hn::Mul(beta2, hn::LoadU(d, v + i)), hn::Mul(rest2, hn::Mul(gi, gi)));
    const auto denominator = hn::Add(hn::Mul(hn::Sqrt(vi), inverse_root_bias), eps);
    const auto pi =
        hn::Sub(hn::Mul(hn::LoadU(d, p + i), decay), hn::Mul(step_size, hn::Div(mi, denominator)));
    hn::StoreU(mi, d, m + i);
    hn::StoreU(vi, d, v + i);
    hn::StoreU(pi, d, p + i);
  }
  for (; i < n; ++i) AdamWElement(p[i], g[i], m[i], v[i], c);
}

void SecondMomentAll(const float* g, float* v, size_t n, const AdamWCoefficients<float>& c) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto grad_scale = hn::Set(d, c.grad_scale);
  const auto beta2 = hn::Set(d, c.beta2), rest2 = hn::Set(d, c.rest2);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto gi = hn::Mul(hn::LoadU(d, g + i), grad_scale);
    hn::StoreU(hn::Add(hn::Mul(beta2, hn::LoadU(d, v + i)), hn::Mul(rest2, hn::Mul(gi, gi))), d,
               v + i);
  }
  for (; i < n; ++i) v[i] = SecondMomentElement(g[i], v[i], c);
}

void AdamMiniAll(float* p, const float* g, float* m, size_t n, float denominator,
                 const AdamWCoefficients<float>& c) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto grad_scale = hn::Set(d, c.grad_scale), decay = hn::Set(d, c.decay);
  const auto beta1 = hn::Set(d, c.beta1), rest1 = hn::Set(d, c.rest1);
  const auto step_size = hn::Set(d, c.step_size), below = hn::Set(d, denominator);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto gi = hn::Mul(hn::LoadU(d, g + i), grad_scale);
    const auto mi = hn::Add(hn::Mul(beta1, hn::LoadU(d, m + i)), hn::Mul(rest1, gi));
    hn::StoreU(mi, d, m + i);
    hn::StoreU(hn::Sub(hn::Mul(hn::LoadU(d, p + i), decay), hn::Mul(step_size, hn::Div(mi, below))),
               d, p + i);
  }
  for (; i < n; ++i) AdamMiniElement(p[i], g[i], m[i], denominator, c);
}

void SgdAll(float* p, const float* g, size_t n, const SgdmCoefficients<float>& c) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto grad_scale = hn::Set(d, c.grad_scale), weight_decay = hn::Set(d, c.weight_decay);
  const auto lr = hn::Set(d, c.lr);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto pi = hn::LoadU(d, p + i);
    const auto gi = hn::Add(hn::Mul(hn::LoadU(d, g + i), grad_scale), hn::Mul(weight_decay, pi));
    hn::StoreU(hn::Sub(pi, hn::Mul(lr, gi)), d, p + i);
  }
  for (; i < n; ++i) SgdElement(p[i], g[i], c);
}

void SgdmAll(float* p, const float* g, float* m, size_t n, const SgdmCoefficients<float>& c) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto grad_scale = hn::Set(d, c.grad_scale), weight_decay = hn::Set(d, c.weight_decay);
  const auto lr = hn::Set(d, c.lr), momentum = hn::Set(d, c.momentum);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto pi = hn::LoadU(d, p + i);
    const auto gi = hn::Add(hn::Mul(hn::LoadU(d, g + i), grad_scale), hn::Mul(weight_decay, pi));
    const auto mi = hn::Add(hn::Mul(momentum, hn::LoadU(d, m + i)), gi);
    const auto direction = c.nesterov ? hn::Add(gi, hn::Mul(momentum, mi)) : mi;
    hn::StoreU(mi, d, m + i);
    hn::StoreU(hn::Sub(pi, hn::Mul(lr, direction)), d, p + i);
  }
  for (; i < n; ++i) SgdmElement(p[i], g[i], m[i], c);
}

}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(AdamWAll);
HWY_EXPORT(SecondMomentAll);
HWY_EXPORT(AdamMiniAll);
HWY_EXPORT(SgdAll);
HWY_EXPORT(SgdmAll);

void AdamWStep(std::span<float> p, std::span<const float> g, std::span<float> m, std::span<float> v,
               const AdamWCoefficients<float>& c) {
  if (DeviceKernels* device = OnDevice()) return device->AdamWStep(p, g, m, v, c);
  HWY_DYNAMIC_DISPATCH(AdamWAll)(p.data(), g.data(), m.data(), v.data(), p.size(), c);
}

void SecondMomentStep(std::span<const float> g, std::span<float> v,
                      const AdamWCoefficients<float>& c) {
  if (DeviceKernels* device = OnDevice()) return device->SecondMomentStep(g, v, c);
  HWY_DYNAMIC_DISPATCH(SecondMomentAll)(g.data(), v.data(), v.size(), c);
}

void AdamMiniStep(std::span<float> p, std::span<const float> g, std::span<float> m,
                  float denominator, const AdamWCoefficients<float>& c) {
  HWY_DYNAMIC_DISPATCH(AdamMiniAll)(p.data(), g.data(), m.data(), p.size(), denominator, c);
}

void SgdStep(std::span<float> p, std::span<const float> g, const SgdmCoefficients<float>& c) {
  if (DeviceKernels* device = OnDevice()) return device->SgdStep(p, g, c);
  HWY_DYNAMIC_DISPATCH(SgdAll)(p.data(), g.data(), p.size(), c);
}

void SgdmStep(std::span<float> p, std::span<const float> g, std::span<float> m,
              const SgdmCoefficients<float>& c) {
  if (DeviceKernels* device = OnDevice()) return device->SgdmStep(p, g, m, c);
  HWY_DYNAMIC_DISPATCH(SgdmAll)(p.data(), g.data(), m.data(), p.size(), c);
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
