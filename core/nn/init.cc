// Box and Muller (1958): for u, v uniform, sqrt(-2 ln u) * (cos 2 pi v, sin 2 pi v) are two
// independent normal numbers. One Philox block of four 32-bit words gives two such pairs. ln, cos
// and sin are series of our own in double, see init.h; their error, below 1e-14, is far under the
// rounding to float.

#include "core/nn/init.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <array>
#include <cmath>

#include "core/base/hash.h"
#include "core/base/rng.h"

namespace tw {
namespace {

// ln x for x in (0, 1]: x = m * 2^e with m in [0.70, 1.42), ln m = 2 artanh((m - 1) / (m + 1)).
double Ln(double x) {
  int e = 0;
  double m = std::frexp(x, &e);
  if (m < 0.70710678118654752) {
    m *= 2;
    --e;
  }
  const double s = (m - 1) / (m + 1);
  const double s2 = s * s;
  double sum = 0;
  for (int k = 21; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
  return 2 * s * sum + e * 0.69314718055994530942;
}

struct SinCos {
  double sin, cos;
};

// Of 2 pi v for v in [0, 1): Taylor series on [-pi/4, pi/4], then a turn by quarters.
SinCos SinCosTurns(double v) {
  const double quarters = v * 4;
  const int q = static_cast<int>(quarters + 0.5);
  const double x = (quarters - q) * 1.57079632679489661923;
  const double x2 = x * x;
  double s = 0, c = 0;
  for (int k = 17; k >= 1; k -= 2) s = 1 - s * x2 / ((k + 1) * (k + 2));
  for (int k = 16; k >= 0; k -= 2) c = 1 - c * x2 / ((k + 1) * (k + 2));
  s *= x;
  switch (q & 3) {
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

RngStream StreamOf(uint64_t seed, const std::string& name) {
  const uint64_t hash = Hash64(name);
  return RngStream::Of(seed, RngPurpose::kModelInit, hash >> 32, static_cast<uint32_t>(hash),
                       kSharedRank);
}

std::array<double, 4> FourNormals(const RngStream& rng, uint64_t block) {
  const auto r = rng.At(block);
  std::array<double, 4> out{};
  for (size_t pair = 0; pair < 2; ++pair) {
    const double u = (static_cast<double>(r[2 * pair]) + 1) * 0x1.0p-32;  // in (0, 1]
    const double v = static_cast<double>(r[2 * pair + 1]) * 0x1.0p-32;    // in [0, 1)
    const double radius = std::sqrt(-2 * Ln(u));
    const SinCos turn = SinCosTurns(v);
    out[2 * pair] = radius * turn.cos;
    out[2 * pair + 1] = radius * turn.sin;
  }
  return out;
}

}  // namespace

double StandardNormal(uint64_t seed, const std::string& name, uint64_t index) {
  return FourNormals(StreamOf(seed, name), index / 4)[index % 4];
}

void InitNormal(uint64_t seed, const std::string& name, double std, const at::Tensor& weight) {
  const RngStream rng = StreamOf(seed, name);
  at::Tensor drawn = at::empty(weight.sizes(), at::kFloat);
  float* out = drawn.data_ptr<float>();
  const auto numel = static_cast<uint64_t>(drawn.numel());
  for (uint64_t i = 0; i < numel; i += 4) {
    const auto four = FourNormals(rng, i / 4);
    for (uint64_t j = 0; j < 4 && i + j < numel; ++j)
      out[i + j] = static_cast<float>(std * four[j]);
  }
  const at::NoGradGuard no_grad;
  weight.copy_(drawn);
}

}  // namespace tw
