#pragma once
// Plain loops with the results of elementwise.h and reduce.h, for tests.

#include <cmath>
#include <cstdint>
#include <span>

#include "core/kernels/float16.h"

namespace tw::kernels::reference {

inline void AddInPlace(std::span<float> a, float s, std::span<const float> b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += s * b[i];
}

inline bool AllFinite(std::span<const float> x) {
  for (const float v : x) {
    if (!std::isfinite(v)) return false;
  }
  return true;
}

// Sum of term(double) over sixteen lanes and a binary tree, see reduce.h.
template <class Term>
double FixedSum(std::span<const float> x, Term term) {
  double lanes[16] = {};
  for (size_t i = 0; i < x.size(); ++i) lanes[i % 16] += term(static_cast<double>(x[i]));
  for (size_t half = 8; half; half /= 2) {
    for (size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

inline double SumOfSquares(std::span<const float> x) {
  return FixedSum(x, [](double v) { return v * v; });
}
inline double SumAbs(std::span<const float> x) {
  return FixedSum(x, [](double v) { return std::fabs(v); });
}

}  // namespace tw::kernels::reference
