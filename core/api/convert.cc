#include "core/api/convert.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "core/base/status.h"

namespace tw {

float Bf16ToFloat(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

uint16_t FloatToBf16(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);  // NaN
  return static_cast<uint16_t>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

float HalfToFloat(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16;
  const uint32_t exponent = (h >> 10) & 31u;
  const uint32_t mantissa = h & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1.0p-24f;
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t FloatToHalf(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t magnitude = u & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // rounds to Inf
  if (magnitude < 0x38800000u) {  // subnormal half: round in units of 2^-24
    const float scaled = std::bit_cast<float>(magnitude) * 0x1.0p24f;
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(scaled)));
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

namespace {

template <class F>
void WithLoad(TensorView v, F&& f) {
  switch (v.dtype) {
    case DType::kF32:
      f([p = static_cast<const float*>(v.data)](int64_t i) { return p[i]; });
      return;
    case DType::kF64:
      f([p = static_cast<const double*>(v.data)](int64_t i) { return p[i]; });
      return;
    case DType::kF16:
      f([p = static_cast<const uint16_t*>(v.data)](int64_t i) { return HalfToFloat(p[i]); });
      return;
    case DType::kBF16:
      f([p = static_cast<const uint16_t*>(v.data)](int64_t i) { return Bf16ToFloat(p[i]); });
      return;
    default:
      TW_CHECK(false && "a floating point view is required");
  }
}

template <class F>
void WithStore(TensorView v, F&& f) {
  switch (v.dtype) {
    case DType::kF32:
      f([p = static_cast<float*>(v.data)](int64_t i, auto x) { p[i] = static_cast<float>(x); });
      return;
    case DType::kF64:
      f([p = static_cast<double*>(v.data)](int64_t i, auto x) { p[i] = static_cast<double>(x); });
      return;
    case DType::kF16:
      f([p = static_cast<uint16_t*>(v.data)](int64_t i, auto x) {
        p[i] = FloatToHalf(static_cast<float>(x));
      });
      return;
    case DType::kBF16:
      f([p = static_cast<uint16_t*>(v.data)](int64_t i, auto x) {
        p[i] = FloatToBf16(static_cast<float>(x));
      });
      return;
    default:
      TW_CHECK(false && "a floating point view is required");
  }
}

}  // namespace

void AddScaled(TensorView to, TensorView from, float scale) {
  TW_CHECK_EQ(to.numel, from.numel);
  WithLoad(from, [&](auto load_from) {
    WithLoad(to, [&](auto load_to) {
      WithStore(to, [&](auto store) {
        for (int64_t i = 0; i < to.numel; ++i) store(i, load_to(i) + scale * load_from(i));
      });
    });
  });
}

void ConvertToFp32(TensorView from, std::span<float> to) {
  TW_CHECK_EQ(from.numel, static_cast<int64_t>(to.size()));
  if (from.dtype == DType::kF32) {
    if (from.numel) std::memcpy(to.data(), from.data, static_cast<size_t>(from.bytes()));
    return;
  }
  WithLoad(from, [&](auto load) {
    for (int64_t i = 0; i < from.numel; ++i)
      to[static_cast<size_t>(i)] = static_cast<float>(load(i));
  });
}

void ConvertFromFp32(std::span<const float> from, TensorView to) {
  TW_CHECK_EQ(to.numel, static_cast<int64_t>(from.size()));
  if (to.dtype == DType::kF32) {
    if (to.numel) std::memcpy(to.data, from.data(), static_cast<size_t>(to.bytes()));
    return;
  }
  WithStore(to, [&](auto store) {
    for (int64_t i = 0; i < to.numel; ++i) store(i, from[static_cast<size_t>(i)]);
  });
}

void ReplaceByResidual(TensorView buffer, std::span<const float> residual) {
  if (buffer.dtype == DType::kF64) {
    auto* p = static_cast<double*>(buffer.data);
    for (int64_t i = 0; i < buffer.numel; ++i) {
      p[i] = (p[i] - static_cast<double>(static_cast<float>(p[i]))) +
             static_cast<double>(residual[static_cast<size_t>(i)]);
    }
    return;
  }
  ConvertFromFp32(residual, buffer);
}

void FillZero(TensorView view) {
  if (view.numel) std::memset(view.data, 0, static_cast<size_t>(view.bytes()));
}

bool AllFinite(TensorView view) {
  bool finite = true;
  WithLoad(view, [&](auto load) {
    // Sum of 0*x is NaN as soon as one x is not finite; the loop has no branch to keep it from
    // vectorizing.
    double sum = 0;
    for (int64_t i = 0; i < view.numel; ++i) sum += static_cast<double>(load(i)) * 0.0;
    finite = sum == 0;
  });
  return finite;
}

}  // namespace tw
