#include "core/kernels/int8_block.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/int8_block.cc"
#include "core/kernels/device_kernels.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;
using DI = hn::RebindToSigned<DF>;
using D8 = hn::Rebind<int8_t, DF>;

// 0 times anything finite is 0: the sum of such products is what tells the rest.
float BlockScale(const float* x, int64_t n) {
  const DF d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto most = hn::Zero(d), check = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto v = hn::LoadU(d, x + i);
    most = hn::Max(most, hn::Abs(v));
    check = hn::Add(check, hn::Mul(v, hn::Zero(d)));
  }
  float max = hn::GetLane(hn::MaxOfLanes(d, most)), bad = hn::GetLane(hn::SumOfLanes(d, check));
  for (; i < n; ++i) {
    max = std::max(max, std::abs(x[i]));
    bad += x[i] * 0.0f;
  }
  return bad == 0 ? max / 127.0f : std::numeric_limits<float>::quiet_NaN();
}

void EncodeBlock(const float* x, int64_t n, float scale, int8_t* codes) {
  // Also where 127 / max would overflow: those numbers are below 127 denormal steps.
  const float inverse = 1.0f / scale;
  if (!(std::isfinite(inverse))) {
    for (int64_t i = 0; i < n; ++i) {
      codes[i] = scale > 0 ? static_cast<int8_t>(std::nearbyint(x[i] / scale)) : int8_t{0};
    }
    return;
  }
  const DF d;
  const DI di;
  const D8 d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto factor = hn::Set(d, inverse);
  const auto low = hn::Set(di, -127), high = hn::Set(di, 127);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto q = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), factor));
    hn::StoreU(hn::DemoteTo(d8, hn::Min(hn::Max(q, low), high)), d8, codes + i);
  }
  for (; i < n; ++i) {
    const float q = std::nearbyint(x[i] * inverse);
    codes[i] = static_cast<int8_t>(std::clamp(q, -127.0f, 127.0f));
  }
}

void DecodeBlock(const int8_t* codes, int64_t n, float scale, float* out) {
  const DF d;
  const DI di;
  const D8 d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto factor = hn::Set(d, scale);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto q = hn::PromoteTo(di, hn::LoadU(d8, codes + i));
    hn::StoreU(hn::Mul(hn::ConvertTo(d, q), factor), d, out + i);
  }
  for (; i < n; ++i) out[i] = static_cast<float>(codes[i]) * scale;
}

void QuantizeAll(const float* x, int64_t rows, int64_t cols, int8_t* codes, float* scales) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t from = 0; from < cols; from += kInt8Block, ++scales) {
      const int64_t n = std::min(kInt8Block, cols - from), at = row * cols + from;
      *scales = BlockScale(x + at, n);
      EncodeBlock(x + at, n, *scales, codes + at);
    }
  }
}

void DequantizeAll(const int8_t* codes, const float* scales, int64_t rows, int64_t cols,
                   float* out) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t from = 0; from < cols; from += kInt8Block, ++scales) {
      const int64_t n = std::min(kInt8Block, cols - from), at = row * cols + from;
      DecodeBlock(codes + at, n, *scales, out + at);
    }
  }
}

}  // namespace
}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(QuantizeAll);
HWY_EXPORT(DequantizeAll);

void QuantizeInt8(const float* x, int64_t rows, int64_t cols, int8_t* codes, float* scales) {
  if (DeviceKernels* device = OnDevice()) return device->QuantizeInt8(x, rows, cols, codes, scales);
  HWY_DYNAMIC_DISPATCH(QuantizeAll)(x, rows, cols, codes, scales);
}
void DequantizeInt8(const int8_t* codes, const float* scales, int64_t rows, int64_t cols,
                    float* out) {
  if (DeviceKernels* device = OnDevice()) {
    return device->DequantizeInt8(codes, scales, rows, cols, out);
  }
  HWY_DYNAMIC_DISPATCH(DequantizeAll)(codes, scales, rows, cols, out);
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
