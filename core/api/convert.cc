#include "core/api/convert.h"

#include <cstring>
#include <type_traits>

#include "core/base/device.h"
#include "core/base/status.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/float16.h"
#include "core/kernels/reduce.h"

namespace tw {

float HalfToFloat(uint16_t bits) { return kernels::HalfToFloat(bits); }
uint16_t FloatToHalf(float value) { return kernels::FloatToHalf(value); }
float Bf16ToFloat(uint16_t bits) { return kernels::Bf16ToFloat(bits); }
uint16_t FloatToBf16(float value) { return kernels::FloatToBf16(value); }

namespace {

// Single elements through memcpy: a view may lie inside a body, at any address.
template <class T>
T LoadAt(const void* data, int64_t i) {
  return LoadLE<T>(static_cast<const uint8_t*>(data) + i * static_cast<int64_t>(sizeof(T)));
}
template <class T>
void StoreAt(void* data, int64_t i, T value) {
  StoreLE(static_cast<uint8_t*>(data) + i * static_cast<int64_t>(sizeof(T)), value);
}

template <class F>
void WithLoad(TensorView v, F&& f) {
  switch (v.dtype) {
    case DType::kF32:
      f([p = v.data](int64_t i) { return LoadAt<float>(p, i); });
      return;
    case DType::kF64:
      f([p = v.data](int64_t i) { return LoadAt<double>(p, i); });
      return;
    case DType::kF16:
      f([p = v.data](int64_t i) { return HalfToFloat(LoadAt<uint16_t>(p, i)); });
      return;
    case DType::kBF16:
      f([p = v.data](int64_t i) { return Bf16ToFloat(LoadAt<uint16_t>(p, i)); });
      return;
    default:
      TW_CHECK(false && "a floating point view is required");
  }
}

template <class F>
void WithStore(TensorView v, F&& f) {
  switch (v.dtype) {
    case DType::kF32:
      f([p = v.data](int64_t i, auto x) { StoreAt(p, i, static_cast<float>(x)); });
      return;
    case DType::kF64:
      f([p = v.data](int64_t i, auto x) { StoreAt(p, i, static_cast<double>(x)); });
      return;
    case DType::kF16:
      f([p = v.data](int64_t i, auto x) {
        StoreAt(p, i, kernels::FloatToHalfSaturated(static_cast<float>(x)));
      });
      return;
    case DType::kBF16:
      f([p = v.data](int64_t i, auto x) { StoreAt(p, i, FloatToBf16(static_cast<float>(x))); });
      return;
    default:
      TW_CHECK(false && "a floating point view is required");
  }
}

std::span<uint16_t> Bits16(TensorView v) {
  return {static_cast<uint16_t*>(v.data), static_cast<size_t>(v.numel)};
}

}  // namespace

void AddScaled(TensorView to, TensorView from, float scale) {
  TW_CHECK_EQ(to.numel, from.numel);
  if (to.dtype == DType::kF32) {
    switch (from.dtype) {
      case DType::kF32:
        kernels::AddInPlace(to.f32(), scale, from.f32());
        return;
      case DType::kF16:
        kernels::AddFromHalf(to.f32(), scale, Bits16(from));
        return;
      case DType::kBF16:
        kernels::AddFromBf16(to.f32(), scale, Bits16(from));
        return;
      default:
        break;
    }
  }
  if (auto* device = kernels::OnDevice()) return device->AddToNarrow(to, scale, from);
  WithLoad(from, [&](auto load_from) {
    WithLoad(to, [&](auto load_to) {
      WithStore(to, [&](auto store) {
        using T = std::common_type_t<decltype(load_to(0)), decltype(load_from(0))>;
        const T factor = scale;
        for (int64_t i = 0; i < to.numel; ++i) {
          store(i, static_cast<T>(load_to(i)) + factor * static_cast<T>(load_from(i)));
        }
      });
    });
  });
}

void ConvertToFp32(TensorView from, std::span<float> to) {
  TW_CHECK_EQ(from.numel, static_cast<int64_t>(to.size()));
  if (from.dtype == DType::kF32) {
    return CopyBytes(to.data(), from.data, static_cast<size_t>(from.bytes()));
  }
  if (from.dtype == DType::kF16) return kernels::ConvertFromHalf(Bits16(from), to);
  if (from.dtype == DType::kBF16) return kernels::ConvertFromBf16(Bits16(from), to);
  WithLoad(from, [&](auto load) {
    for (int64_t i = 0; i < from.numel; ++i)
      to[static_cast<size_t>(i)] = static_cast<float>(load(i));
  });
}

void ConvertFromFp32(std::span<const float> from, TensorView to) {
  TW_CHECK_EQ(to.numel, static_cast<int64_t>(from.size()));
  if (to.dtype == DType::kF32) {
    return CopyBytes(to.data, from.data(), static_cast<size_t>(to.bytes()));
  }
  if (to.dtype == DType::kF16) return kernels::ConvertToHalf(from, Bits16(to));
  if (to.dtype == DType::kBF16) return kernels::ConvertToBf16(from, Bits16(to));
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

void FillZero(TensorView view) { ZeroBytes(view.data, static_cast<size_t>(view.bytes())); }

bool AllFinite(TensorView view) {
  if (view.dtype == DType::kF32) return kernels::AllFinite(view.f32());
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
