#pragma once
// Fused updates of error-feedback memories: one pass over all buffers of a policy.
//
// Element-wise, multiplies and adds kept apart, so the bits do not depend on vector width; the
// plain element functions are the reference and what fp64 runs. Spans of one call have equal
// lengths, may be unaligned or empty, and do not overlap. Thread safe.
//
// Names: h own estimate, e error, v momentum, estimate the mean of all h (H), r the residual.

#include <cstddef>
#include <span>

#include "core/base/host_device.h"

namespace tw::kernels {

// estimate += mean;  mean = estimate
template <class T>
TW_HOST_DEVICE inline void AdvanceElement(T& estimate, T& mean) {
  estimate = estimate + mean;
  mean = estimate;
}

// mean <- estimate + mean;  estimate <- estimate + alpha * old mean
template <class T>
TW_HOST_DEVICE inline void DampedAdvanceElement(T& estimate, T& mean, T alpha) {
  const T message = mean;
  mean = estimate + message;
  estimate = estimate + alpha * message;
}

// g <- (g - h) + eta * e
template <class T>
TW_HOST_DEVICE inline void ErrorMessageElement(T& g, T h, T e, T eta) {
  g = (g - h) + eta * e;
}

// e <- keep * e + r
template <class T>
TW_HOST_DEVICE inline void ErrorMemoryElement(T& e, T r, T keep) {
  e = keep * e + r;
}

// v <- (1 - b) * v + b * g;  g <- v - h.  `keep` is 1 - b.
template <class T>
TW_HOST_DEVICE inline void MomentumMessageElement(T& v, T& g, T h, T keep, T b) {
  v = keep * v + b * g;
  g = v - h;
}

// v <- (1 - b) * v + b * g;  g <- (v - h) + eta * e
template <class T>
TW_HOST_DEVICE inline void MomentumErrorMessageElement(T& v, T& g, T h, T e, T keep, T b, T eta) {
  v = keep * v + b * g;
  g = (v - h) + eta * e;
}

void Advance(std::span<float> estimate, std::span<float> mean);
void DampedAdvance(std::span<float> estimate, std::span<float> mean, float alpha);
void ErrorMessage(std::span<float> g, std::span<const float> h, std::span<const float> e,
                  float eta);
void ErrorMemory(std::span<float> e, std::span<const float> r, float keep);
void MomentumMessage(std::span<float> v, std::span<float> g, std::span<const float> h, float keep,
                     float b);
void MomentumErrorMessage(std::span<float> v, std::span<float> g, std::span<const float> h,
                          std::span<const float> e, float keep, float b, float eta);

// The same for fp64 parameters, one element after the other.
void Advance(std::span<double> estimate, std::span<double> mean);
void DampedAdvance(std::span<double> estimate, std::span<double> mean, double alpha);
void ErrorMessage(std::span<double> g, std::span<const double> h, std::span<const double> e,
                  double eta);
void ErrorMemory(std::span<double> e, std::span<const double> r, double keep);
void MomentumMessage(std::span<double> v, std::span<double> g, std::span<const double> h,
                     double keep, double b);
void MomentumErrorMessage(std::span<double> v, std::span<double> g, std::span<const double> h,
                          std::span<const double> e, double keep, double b, double eta);

}  // namespace tw::kernels
