#include "core/kernels/feedback.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/feedback.cc"
#include "core/kernels/device_kernels.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Every loop is its element function, operation by operation; the last elements that fill no
// vector go through the function itself.

void AdvanceAll(float* estimate, float* mean, size_t n) {
  const hn::ScalableTag<float> d;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto sum = hn::Add(hn::LoadU(d, estimate + i), hn::LoadU(d, mean + i));
    hn::StoreU(sum, d, estimate + i);
    hn::StoreU(sum, d, mean + i);
  }
  for (; i < n; ++i) AdvanceElement(estimate[i], mean[i]);
}

void DampedAdvanceAll(float* estimate, float* mean, float alpha, size_t n) {
  const hn::ScalableTag<float> d;
  const auto a = hn::Set(d, alpha);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto message = hn::LoadU(d, mean + i);
    const auto old = hn::LoadU(d, estimate + i);
    hn::StoreU(hn::Add(old, message), d, mean + i);
    hn::StoreU(hn::Add(old, hn::Mul(a, message)), d, estimate + i);
  }
  for (; i < n; ++i) DampedAdvanceElement(estimate[i], mean[i], alpha);
}

void ErrorMessageAll(float* g, const float* h, const float* e, float eta, size_t n) {
  const hn::ScalableTag<float> d;
  const auto a = hn::Set(d, eta);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto gap = hn::Sub(hn::LoadU(d, g + i), hn::LoadU(d, h + i));
    hn::StoreU(hn::Add(gap, hn::Mul(a, hn::LoadU(d, e + i))), d, g + i);
  }
  for (; i < n; ++i) ErrorMessageElement(g[i], h[i], e[i], eta);
}

void ErrorMemoryAll(float* e, const float* r, float keep, size_t n) {
  const hn::ScalableTag<float> d;
  const auto k = hn::Set(d, keep);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    hn::StoreU(hn::Add(hn::Mul(k, hn::LoadU(d, e + i)), hn::LoadU(d, r + i)), d, e + i);
  }
  for (; i < n; ++i) ErrorMemoryElement(e[i], r[i], keep);
}

void MomentumMessageAll(float* v, float* g, const float* h, float keep, float b, size_t n) {
  const hn::ScalableTag<float> d;
  const auto k = hn::Set(d, keep), w = hn::Set(d, b);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto vi = hn::Add(hn::Mul(k, hn::LoadU(d, v + i)), hn::Mul(w, hn::LoadU(d, g + i)));
    hn::StoreU(vi, d, v + i);
    hn::StoreU(hn::Sub(vi, hn::LoadU(d, h + i)), d, g + i);
  }
  for (; i < n; ++i) MomentumMessageElement(v[i], g[i], h[i], keep, b);
}

void MomentumErrorMessageAll(float* v, float* g, const float* h, const float* e, float keep,
                             float b, float eta, size_t n) {
  const hn::ScalableTag<float> d;
  const auto k = hn::Set(d, keep), w = hn::Set(d, b), a = hn::Set(d, eta);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto vi = hn::Add(hn::Mul(k, hn::LoadU(d, v + i)), hn::Mul(w, hn::LoadU(d, g + i)));
    hn::StoreU(vi, d, v + i);
    const auto gap = hn::Sub(vi, hn::LoadU(d, h + i));
    hn::StoreU(hn::Add(gap, hn::Mul(a, hn::LoadU(d, e + i))), d, g + i);
  }
  for (; i < n; ++i) MomentumErrorMessageElement(v[i], g[i], h[i], e[i], keep, b, eta);
}

}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(AdvanceAll);
HWY_EXPORT(DampedAdvanceAll);
HWY_EXPORT(ErrorMessageAll);
HWY_EXPORT(ErrorMemoryAll);
HWY_EXPORT(MomentumMessageAll);
HWY_EXPORT(MomentumErrorMessageAll);

void Advance(std::span<float> estimate, std::span<float> mean) {
  if (DeviceKernels* device = OnDevice()) return device->Advance(estimate, mean);
  HWY_DYNAMIC_DISPATCH(AdvanceAll)(estimate.data(), mean.data(), mean.size());
}
void DampedAdvance(std::span<float> estimate, std::span<float> mean, float alpha) {
  if (DeviceKernels* device = OnDevice()) return device->DampedAdvance(estimate, mean, alpha);
  HWY_DYNAMIC_DISPATCH(DampedAdvanceAll)(estimate.data(), mean.data(), alpha, mean.size());
}
void ErrorMessage(std::span<float> g, std::span<const float> h, std::span<const float> e,
                  float eta) {
  if (DeviceKernels* device = OnDevice()) return device->ErrorMessage(g, h, e, eta);
  HWY_DYNAMIC_DISPATCH(ErrorMessageAll)(g.data(), h.data(), e.data(), eta, g.size());
}
void ErrorMemory(std::span<float> e, std::span<const float> r, float keep) {
  if (DeviceKernels* device = OnDevice()) return device->ErrorMemory(e, r, keep);
  HWY_DYNAMIC_DISPATCH(ErrorMemoryAll)(e.data(), r.data(), keep, e.size());
}
void MomentumMessage(std::span<float> v, std::span<float> g, std::span<const float> h, float keep,
                     float b) {
  if (DeviceKernels* device = OnDevice()) return device->MomentumMessage(v, g, h, keep, b);
  HWY_DYNAMIC_DISPATCH(MomentumMessageAll)(v.data(), g.data(), h.data(), keep, b, g.size());
}
void MomentumErrorMessage(std::span<float> v, std::span<float> g, std::span<const float> h,
                          std::span<const float> e, float keep, float b, float eta) {
  if (DeviceKernels* device = OnDevice()) {
    return device->MomentumErrorMessage(v, g, h, e, keep, b, eta);
  }
  HWY_DYNAMIC_DISPATCH(MomentumErrorMessageAll)
  (v.data(), g.data(), h.data(), e.data(), keep, b, eta, g.size());
}

void Advance(std::span<double> estimate, std::span<double> mean) {
  for (size_t i = 0; i < mean.size(); ++i) AdvanceElement(estimate[i], mean[i]);
}
void DampedAdvance(std::span<double> estimate, std::span<double> mean, double alpha) {
  for (size_t i = 0; i < mean.size(); ++i) DampedAdvanceElement(estimate[i], mean[i], alpha);
}
void ErrorMessage(std::span<double> g, std::span<const double> h, std::span<const double> e,
                  double eta) {
  for (size_t i = 0; i < g.size(); ++i) ErrorMessageElement(g[i], h[i], e[i], eta);
}
void ErrorMemory(std::span<double> e, std::span<const double> r, double keep) {
  for (size_t i = 0; i < e.size(); ++i) ErrorMemoryElement(e[i], r[i], keep);
}
void MomentumMessage(std::span<double> v, std::span<double> g, std::span<const double> h,
                     double keep, double b) {
  for (size_t i = 0; i < g.size(); ++i) MomentumMessageElement(v[i], g[i], h[i], keep, b);
}
void MomentumErrorMessage(std::span<double> v, std::span<double> g, std::span<const double> h,
                          std::span<const double> e, double keep, double b, double eta) {
  for (size_t i = 0; i < g.size(); ++i) {
    MomentumErrorMessageElement(v[i], g[i], h[i], e[i], keep, b, eta);
  }
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
