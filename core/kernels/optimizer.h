#pragma once
// Fused optimizer steps: one pass over parameter, gradient and moments, nothing else is touched.
//
// Element-wise, multiplies and adds kept apart, correctly rounded square root and division: the
// bits do not depend on vector width, and the plain element functions below are both the reference
// and what other dtypes run. Spans of one call have equal lengths, may be unaligned or empty, and
// do not overlap. Thread safe.

#include <cmath>
#include <span>

#include "core/base/host_device.h"

namespace tw::kernels {

// What one AdamW update needs, computed once a step in fp64 and rounded to T.
template <class T>
struct AdamWCoefficients {
  T grad_scale;         // g <- grad_scale * g
  T decay;              // 1 - lr * weight_decay
  T beta1, rest1;       // rest1 = 1 - beta1
  T beta2, rest2;       // rest2 = 1 - beta2
  T step_size;          // lr / (1 - beta1^t)
  T inverse_root_bias;  // 1 / sqrt(1 - beta2^t)
  T eps;
  bool operator==(const AdamWCoefficients&) const = default;
};

template <class T>
TW_HOST_DEVICE inline void AdamWElement(T& p, T g, T& m, T& v, const AdamWCoefficients<T>& c) {
  g = g * c.grad_scale;
  m = c.beta1 * m + c.rest1 * g;
  v = c.beta2 * v + c.rest2 * (g * g);
  const T denominator = std::sqrt(v) * c.inverse_root_bias + c.eps;
  p = p * c.decay - c.step_size * (m / denominator);
}

template <class T>
TW_HOST_DEVICE inline T SecondMomentElement(T g, T v, const AdamWCoefficients<T>& c) {
  g = g * c.grad_scale;
  return c.beta2 * v + c.rest2 * (g * g);
}

void AdamWStep(std::span<float> p, std::span<const float> g, std::span<float> m, std::span<float> v,
               const AdamWCoefficients<float>& c);
// v alone, with the bits of AdamWStep.
void SecondMomentStep(std::span<const float> g, std::span<float> v,
                      const AdamWCoefficients<float>& c);

// The same with a denominator, sqrt(v) * inverse_root_bias + eps, that many elements share.
template <class T>
TW_HOST_DEVICE inline void AdamMiniElement(T& p, T g, T& m, T denominator,
                                           const AdamWCoefficients<T>& c) {
  m = c.beta1 * m + c.rest1 * (g * c.grad_scale);
  p = p * c.decay - c.step_size * (m / denominator);
}
void AdamMiniStep(std::span<float> p, std::span<const float> g, std::span<float> m,
                  float denominator, const AdamWCoefficients<float>& c);

// Stochastic gradient descent with momentum in the form of torch.optim.SGD.
template <class T>
struct SgdmCoefficients {
  T grad_scale;
  T weight_decay;  // added to the gradient (coupled)
  T momentum;
  T lr;
  bool nesterov;
  bool operator==(const SgdmCoefficients&) const = default;
};

template <class T>
TW_HOST_DEVICE inline void SgdElement(T& p, T g, const SgdmCoefficients<T>& c) {
  p = p - c.lr * (g * c.grad_scale + c.weight_decay * p);
}

template <class T>
TW_HOST_DEVICE inline void SgdmElement(T& p, T g, T& m, const SgdmCoefficients<T>& c) {
  g = g * c.grad_scale + c.weight_decay * p;
  m = c.momentum * m + g;
  p = p - c.lr * (c.nesterov ? g + c.momentum * m : m);
}

// Without a moment (momentum = 0).
void SgdStep(std::span<float> p, std::span<const float> g, const SgdmCoefficients<float>& c);
void SgdmStep(std::span<float> p, std::span<const float> g, std::span<float> m,
              const SgdmCoefficients<float>& c);

}  // namespace tw::kernels
