#include "core/kernels/eigenvalues.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/base/status.h"

namespace tw::kernels {
namespace {

// Makes a[p][q] zero by a rotation in the plane of p and q.
void Rotate(std::span<double> a, size_t n, size_t p, size_t q) {
  const double off = a[p * n + q];
  if (off == 0.0) return;
  const double theta = (a[q * n + q] - a[p * n + p]) / (2 * off);
  const double t = std::copysign(1.0, theta) / (std::abs(theta) + std::hypot(theta, 1.0));
  const double c = 1 / std::hypot(t, 1.0), s = t * c;
  for (size_t k = 0; k < n; ++k) {
    const double x = a[k * n + p], y = a[k * n + q];
    a[k * n + p] = c * x - s * y;
    a[k * n + q] = s * x + c * y;
  }
  for (size_t k = 0; k < n; ++k) {
    const double x = a[p * n + k], y = a[q * n + k];
    a[p * n + k] = c * x - s * y;
    a[q * n + k] = s * x + c * y;
  }
}

}  // namespace

void SymmetricEigenvalues(std::span<double> a, std::span<double> values) {
  const size_t n = values.size();
  TW_CHECK_EQ(a.size(), n * n);
  constexpr int kMostSweeps = 30;
  for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
    double off = 0, diagonal = 0;
    for (size_t p = 0; p < n; ++p) {
      diagonal += a[p * n + p] * a[p * n + p];
      for (size_t q = p + 1; q < n; ++q) off += a[p * n + q] * a[p * n + q];
    }
    if (!(off > 1e-28 * diagonal)) break;
    for (size_t p = 0; p < n; ++p) {
      for (size_t q = p + 1; q < n; ++q) Rotate(a, n, p, q);
    }
  }
  for (size_t i = 0; i < n; ++i) values[i] = a[i * n + i];
  std::sort(values.begin(), values.end(), std::greater<>());
}

}  // namespace tw::kernels
