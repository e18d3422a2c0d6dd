#include "core/kernels/softmax.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/softmax.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: what follows is compiled once per target.
#include <algorithm>
#include <cmath>
#include <limits>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;

// NaN when any element is: Max alone may lose it.
float MaxOf(const float* x, size_t n) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  const auto lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  auto max0 = lowest, max1 = lowest;
  auto odd = hn::Zero(d);  // bits of a lane that saw a NaN
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + i + lanes);
    max0 = hn::Max(max0, a);
    max1 = hn::Max(max1, b);
    odd = hn::Or(odd, hn::Or(hn::VecFromMask(d, hn::IsNaN(a)), hn::VecFromMask(d, hn::IsNaN(b))));
  }
  float max = hn::GetLane(hn::MaxOfLanes(d, hn::Max(max0, max1)));
  bool nan = !hn::AllFalse(d, hn::MaskFromVec(odd));
  for (; i < n; ++i) {
    nan = nan || std::isnan(x[i]);
    max = std::max(max, x[i]);
  }
  return nan ? std::numeric_limits<float>::quiet_NaN() : max;
}

// y_j = exp(x_j - shift) * scale, stored when `out` is not null; returns the sum of the
// exponentials.
template <bool kStore>
float ExpSum(const float* x, size_t n, float shift, float scale, float* out) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  const auto by = hn::Set(d, shift), factor = hn::Set(d, scale);
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto a = hn::Exp(d, hn::Sub(hn::LoadU(d, x + i), by));
    const auto b = hn::Exp(d, hn::Sub(hn::LoadU(d, x + i + lanes), by));
    if constexpr (kStore) {
      hn::StoreU(hn::Mul(a, factor), d, out + i);
      hn::StoreU(hn::Mul(b, factor), d, out + i + lanes);
    } else {
      sum0 = hn::Add(sum0, a);
      sum1 = hn::Add(sum1, b);
    }
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
  if (i < n) {  // the rest in lanes too: one exp for all sizes
    HWY_ALIGN float rest[2 * hn::MaxLanes(d)];
    const size_t left = n - i;
    std::copy(x + i, x + n, rest);
    std::fill(rest + left, rest + 2 * lanes, -std::numeric_limits<float>::infinity());
    for (size_t k = 0; k < 2 * lanes; k += lanes) {
      hn::Store(hn::Exp(d, hn::Sub(hn::Load(d, rest + k), by)), d, rest + k);
    }
    for (size_t k = 0; k < left; ++k) {
      sum += rest[k];
      if constexpr (kStore) out[i + k] = rest[k] * scale;
    }
  }
  return sum;
}

float SumExpT(const float* x, size_t n, float shift) {
  return ExpSum<false>(x, n, shift, 1, nullptr);
}
void ScaledExpT(float* x, size_t n, float shift, float scale) {
  ExpSum<true>(x, n, shift, scale, x);
}

}  // namespace HWY_NAMESPACE
}  // namespace tw::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(MaxOf);
HWY_EXPORT(SumExpT);
HWY_EXPORT(ScaledExpT);

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kPiece = 512;

}  // namespace

void LogSumExp::Add(std::span<const float> scores) {
  const float piece = HWY_DYNAMIC_DISPATCH(MaxOf)(scores.data(), scores.size());
  if (std::isnan(piece) || piece == kInfinity) sum = kNan;
  if (std::isnan(sum) || piece == -kInfinity) return;
  const float top = std::max(max, piece);
  // In short pieces: one fp32 sum of a large vocabulary would be off by 1e-5 where lanes are few.
  double total = 0;
  for (size_t at = 0; at < scores.size(); at += kPiece) {
    total += static_cast<double>(HWY_DYNAMIC_DISPATCH(SumExpT)(
        scores.data() + at, std::min(kPiece, scores.size() - at), top));
  }
  sum = static_cast<float>(static_cast<double>(sum) *
                               (max == top ? 1.0 : std::exp(static_cast<double>(max - top))) +
                           total);
  max = top;
}

double LogSumExp::value() const {
  return static_cast<double>(max) + std::log(static_cast<double>(sum));
}

void SoftmaxGradient(std::span<float> scores, double lse, float scale) {
  if (!std::isfinite(lse)) {
    std::fill(scores.begin(), scores.end(), kNan);
    return;
  }
  // lse in fp32 alone would move every probability by up to half an ulp of lse, 1e-6 at 16: what
  // rounding lost goes into the factor.
  const auto shift = static_cast<float>(lse);
  const double rest = lse - static_cast<double>(shift);
  HWY_DYNAMIC_DISPATCH(ScaledExpT)
  (scores.data(), scores.size(), shift,
   static_cast<float>(static_cast<double>(scale) * std::exp(-rest)));
}

double CrossEntropyInPlace(std::span<float> scores, int64_t label, float scale) {
  LogSumExp sum;
  sum.Add(scores);
  const double lse = sum.value();
  const auto at = static_cast<size_t>(label);
  const double loss = lse - static_cast<double>(scores[at]);
  SoftmaxGradient(scores, lse, scale);
  scores[at] -= scale;
  return std::isfinite(lse) ? loss : std::numeric_limits<double>::quiet_NaN();
}

namespace reference {

double CrossEntropyInPlace(std::span<float> scores, int64_t label, float scale) {
  double max = -std::numeric_limits<double>::infinity(), sum = 0;
  for (const float x : scores) max = std::max(max, static_cast<double>(x));
  for (const float x : scores) sum += std::exp(static_cast<double>(x) - max);
  const double lse = max + std::log(sum);
  const auto at = static_cast<size_t>(label);
  const double loss = lse - static_cast<double>(scores[at]);
  for (float& x : scores) {
    x = static_cast<float>(static_cast<double>(scale) * std::exp(static_cast<double>(x) - lse));
  }
  scores[at] -= scale;
  return loss;
}

}  // namespace reference
}  // namespace tw::kernels
#endif  // HWY_ONCE
