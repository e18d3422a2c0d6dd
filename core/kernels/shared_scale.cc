#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/shared_scale.cc"
#include "hwy/foreach_target.h"  // compiles what follows once per SIMD target
// foreach_target.h must come first
#include "core/kernels/shared_scale.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "core/kernels/device_kernels.h"
#include "core/kernels/random.h"
#include "core/kernels/random_simd.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

float LargestMagnitudeOf(const float* x, size_t n) {
  const hn::ScalableTag<float> d;
  auto largest = hn::Zero(d);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    largest = hn::Max(largest, hn::Abs(hn::LoadU(d, x + i)));
  }
  float out = hn::GetLane(hn::MaxOfLanes(d, largest));
  for (; i < n; ++i) out = std::max(out, std::fabs(x[i]));
  return out;
}

// Whole vectors only; returns how far it came.
size_t RoundAll(const float* x, float factor, int levels, uint64_t key, uint64_t first_index,
                int16_t* codes, size_t n) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<int16_t, decltype(d)> d16;
  const auto f = hn::Set(d, factor);
  const auto most = hn::Set(di, levels), least = hn::Set(di, -levels);
  const auto iota = hn::Iota(du, 0);  // goes through memory: never inside the loop
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const ElementKey element = ElementKey::Of(key, first_index + i);
    const auto index = hn::Add(iota, hn::Set(du, static_cast<uint32_t>(first_index + i)));
    const auto u = CentredUniformV(d, ElementBitsV(du, element, index));
    const auto q = hn::NearestInt(hn::Add(hn::Mul(hn::LoadU(d, x + i), f), u));
    hn::StoreU(hn::DemoteTo(d16, hn::Min(hn::Max(q, least), most)), d16, codes + i);
  }
  return i;
}

// x <- H x.
void HadamardAll(float* x, size_t n) {
  const hn::ScalableTag<float> d;
  for (size_t half = 1; half < n; half *= 2) {
    for (size_t begin = 0; begin < n; begin += 2 * half) {
      size_t i = begin;
      for (; i + hn::Lanes(d) <= begin + half; i += hn::Lanes(d)) {
        const auto a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + i + half);
        hn::StoreU(hn::Add(a, b), d, x + i);
        hn::StoreU(hn::Sub(a, b), d, x + i + half);
      }
      for (; i < begin + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
    }
  }
}

}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(LargestMagnitudeOf);
HWY_EXPORT(RoundAll);
HWY_EXPORT(HadamardAll);

namespace {

int16_t RoundOne(float x, float scale, int levels, uint64_t key, uint64_t index) {
  return RoundToLevel(x, scale, levels, CentredUniform(ElementBits(key, index)));
}

// Flips signs and multiplies.
void FlipAndScale(std::span<float> x, uint64_t key, uint64_t first_index, float factor) {
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] *= ElementBits(key, first_index + i) & 1 ? -factor : factor;
  }
}

}  // namespace

float LargestMagnitude(std::span<const float> x) {
  return HWY_DYNAMIC_DISPATCH(LargestMagnitudeOf)(x.data(), x.size());
}

void RoundToLevels(std::span<const float> x, float scale, int levels, uint64_t key,
                   uint64_t first_index, std::span<int16_t> codes) {
  size_t done = 0;
  // A vector's indices share their upper half.
  const bool one_half = first_index >> 32 == (first_index + x.size()) >> 32;
  if (IsOrdinaryScale(scale) && one_half) {
    done = HWY_DYNAMIC_DISPATCH(RoundAll)(x.data(), static_cast<float>(levels) / scale, levels, key,
                                          first_index, codes.data(), x.size());
  }
  RoundToLevelsReference(x.subspan(done), scale, levels, key, first_index + done,
                         codes.subspan(done));
}

void RoundToLevelsReference(std::span<const float> x, float scale, int levels, uint64_t key,
                            uint64_t first_index, std::span<int16_t> codes) {
  for (size_t i = 0; i < x.size(); ++i) {
    codes[i] = RoundOne(x[i], scale, levels, key, first_index + i);
  }
}

float LevelStep(float scale, int levels) { return scale / static_cast<float>(levels); }

void Rotate(std::span<float> x, uint64_t key, uint64_t first_index) {
  if (x.empty()) return;
  FlipAndScale(x, key, first_index, 1.0f / std::sqrt(static_cast<float>(x.size())));
  HWY_DYNAMIC_DISPATCH(HadamardAll)(x.data(), x.size());
}

void RotateBack(std::span<float> x, uint64_t key, uint64_t first_index) {
  if (x.empty()) return;
  HWY_DYNAMIC_DISPATCH(HadamardAll)(x.data(), x.size());
  FlipAndScale(x, key, first_index, 1.0f / std::sqrt(static_cast<float>(x.size())));
}

namespace {

// f(first element, elements, number) of each block.
template <class F>
void ForEachBlock(size_t numel, int64_t block, F f) {
  const size_t size = static_cast<size_t>(block);
  for (size_t begin = 0, b = 0; begin < numel; begin += size, ++b) {
    f(begin, std::min(size, numel - begin), b);
  }
}

}  // namespace

void LargestOfBlocks(std::span<const float> x, int64_t block, std::span<float> scales) {
  if (DeviceKernels* device = OnDevice()) return device->LargestOfBlocks(x, block, scales);
  ForEachBlock(x.size(), block, [&](size_t begin, size_t n, size_t b) {
    scales[b] = LargestMagnitude(x.subspan(begin, n));
  });
}

void RoundToCodes(std::span<const float> x, int64_t block, std::span<const float> scales,
                  int levels, uint64_t key, uint64_t first_index, std::span<int8_t> codes) {
  if (DeviceKernels* device = OnDevice()) {
    return device->RoundToCodes(x, block, scales, levels, key, first_index, codes);
  }
  constexpr size_t kPiece = 1024;
  int16_t wide[kPiece];
  ForEachBlock(x.size(), block, [&](size_t begin, size_t n, size_t b) {
    for (size_t at = begin; at < begin + n; at += kPiece) {
      const std::span<int16_t> piece(wide, std::min(kPiece, begin + n - at));
      RoundToLevels(x.subspan(at, piece.size()), scales[b], levels, key, first_index + at, piece);
      for (size_t i = 0; i < piece.size(); ++i) codes[at + i] = static_cast<int8_t>(piece[i]);
    }
  });
}

void ValuesOfCodes(std::span<const int8_t> codes, int64_t block, std::span<const float> scales,
                   int levels, std::span<float> x) {
  if (DeviceKernels* device = OnDevice()) {
    return device->ValuesOfCodes(codes, block, scales, levels, x);
  }
  ForEachBlock(x.size(), block, [&](size_t begin, size_t n, size_t b) {
    const float step = LevelStep(scales[b], levels);
    for (size_t i = begin; i < begin + n; ++i) x[i] = step * static_cast<float>(codes[i]);
  });
}

void RotateBlocks(std::span<float> x, int64_t block, uint64_t key, uint64_t first_index) {
  if (DeviceKernels* device = OnDevice()) return device->RotateBlocks(x, block, key, first_index);
  ForEachBlock(x.size(), block, [&](size_t begin, size_t n, size_t) {
    Rotate(x.subspan(begin, n), key, first_index + begin);
  });
}
void RotateBlocksBack(std::span<float> x, int64_t block, uint64_t key, uint64_t first_index) {
  if (DeviceKernels* device = OnDevice()) {
    return device->RotateBlocksBack(x, block, key, first_index);
  }
  ForEachBlock(x.size(), block, [&](size_t begin, size_t n, size_t) {
    RotateBack(x.subspan(begin, n), key, first_index + begin);
  });
}

void HadamardReference(std::span<float> x) {
  const std::vector<float> from(x.begin(), x.end());
  for (size_t i = 0; i < x.size(); ++i) {
    double sum = 0;
    for (size_t j = 0; j < x.size(); ++j) {
      sum += std::popcount(i & j) % 2 ? -from[j] : from[j];
    }
    x[i] = static_cast<float>(sum);
  }
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
