#include "core/kernels/signs.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/signs.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: what follows is compiled once per target.
#include <algorithm>
#include <bit>
#include <cstring>

#include "core/base/status.h"
#include "core/kernels/device_kernels.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Groups of sixteen floats: two bytes of bits, and the sixteen lanes of a fixed sum.
using F = hn::CappedTag<float, 16>;
#if HWY_TARGET == HWY_SCALAR  // one lane has no halves
using D = hn::CappedTag<double, 1>;
#else
using D = hn::RepartitionToWide<F>;
#endif
constexpr size_t kGroup = 16;
constexpr size_t kLanes = hn::MaxLanes(F());
constexpr size_t kParts = kGroup / kLanes;
constexpr size_t kSumParts = kGroup / hn::MaxLanes(D());

struct Sums {
  hn::Vec<D> positive[kSumParts];  // of the elements >= 0
  hn::Vec<D> negative[kSumParts];  // of magnitudes of the elements < 0
};

HWY_INLINE void AddHalf(Sums& sums, size_t part, hn::Vec<D> v) {
  sums.positive[part] = hn::Add(sums.positive[part], hn::Max(v, hn::Zero(D())));
  sums.negative[part] = hn::Sub(sums.negative[part], hn::Min(v, hn::Zero(D())));
}
HWY_INLINE void AddTo(Sums& sums, size_t part, hn::Vec<F> v) {
#if HWY_TARGET == HWY_SCALAR
  AddHalf(sums, part, hn::PromoteTo(D(), v));
#else
  const hn::Half<F> dh;
  AddHalf(sums, 2 * part, hn::PromoteTo(D(), hn::LowerHalf(dh, v)));
  AddHalf(sums, 2 * part + 1, hn::PromoteTo(D(), hn::UpperHalf(dh, v)));
#endif
}

// One group: performs the addition, adds to the sums, returns the bits.
template <bool kAdd>
HWY_INLINE uint16_t PackGroup(float* HWY_RESTRICT x, const float* HWY_RESTRICT addend, hn::Vec<F> s,
                              Sums& sums) {
  const F d;
  uint32_t bits = 0;
  for (size_t part = 0; part < kParts; ++part) {
    auto v = hn::LoadU(d, x + part * kLanes);
    if (kAdd) {
      v = hn::Add(v, hn::Mul(s, hn::LoadU(d, addend + part * kLanes)));
      hn::StoreU(v, d, x + part * kLanes);
    }
    AddTo(sums, part, v);
    uint8_t bytes[8];
    hn::StoreMaskBits(d, hn::Lt(v, hn::Zero(d)), bytes);
    uint16_t some = bytes[0];
    if (kLanes > 8) std::memcpy(&some, bytes, sizeof(some));
    bits |= uint32_t{some} << (part * kLanes);
  }
  return static_cast<uint16_t>(bits);
}

HWY_INLINE double Tree(const hn::Vec<D>* sums) {
  HWY_ALIGN double lanes[kGroup];
  for (size_t part = 0; part < kSumParts; ++part) {
    hn::Store(sums[part], D(), lanes + part * hn::MaxLanes(D()));
  }
  for (size_t half = kGroup / 2; half; half /= 2) {
    for (size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

template <bool kAdd>
HWY_INLINE SignSums PackAll(float* HWY_RESTRICT buffer, const float* HWY_RESTRICT addend, float s,
                            size_t n, uint8_t* HWY_RESTRICT to) {
  const auto vs = hn::Set(F(), s);
  Sums sums;
  for (auto& v : sums.positive) v = hn::Zero(D());
  for (auto& v : sums.negative) v = hn::Zero(D());
  size_t num_negative = 0;
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    const uint16_t bits = PackGroup<kAdd>(buffer + i, kAdd ? addend + i : nullptr, vs, sums);
    std::memcpy(to + i / 8, &bits, sizeof(bits));
    num_negative += static_cast<size_t>(std::popcount(bits));
  }
  if (i < n) {  // zeros behind the end change neither sums nor bits
    float x[kGroup] = {}, g[kGroup] = {};
    std::copy(buffer + i, buffer + n, x);
    if (kAdd) std::copy(addend + i, addend + n, g);
    const uint16_t bits = PackGroup<kAdd>(x, g, vs, sums);
    std::copy(x, x + (n - i), buffer + i);
    std::memcpy(to + i / 8, &bits, (n - i + 7) / 8);
    num_negative += static_cast<size_t>(std::popcount(bits));
  }
  return {Tree(sums.positive), Tree(sums.negative), num_negative};
}

SignSums PackSignsT(float* buffer, const float* addend, float s, size_t n, uint8_t* to) {
  return addend ? PackAll<true>(buffer, addend, s, n, to)
                : PackAll<false>(buffer, addend, s, n, to);
}

void SubtractBySignT(float* x, float plus, float minus, size_t n) {
  const F d;
  const auto vplus = hn::Set(d, plus);
  const auto vminus = hn::Set(d, minus);
  size_t end = n;
  for (; end % kLanes; --end) x[end - 1] -= x[end - 1] < 0 ? minus : plus;
  for (; end; end -= kLanes) {
    float* at = x + end - kLanes;
    const auto v = hn::LoadU(d, at);
    hn::StoreU(hn::Sub(v, hn::IfThenElse(hn::Lt(v, hn::Zero(d)), vminus, vplus)), d, at);
  }
}

void AddBySignT(float* HWY_RESTRICT x, float plus, float minus, const uint8_t* HWY_RESTRICT bits,
                size_t n) {
  const F d;
  const auto vplus = hn::Set(d, plus);
  const auto vminus = hn::Set(d, minus);
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    uint16_t group;
    std::memcpy(&group, bits + i / 8, sizeof(group));
    for (size_t part = 0; part < kParts; ++part) {
      const uint64_t some = group >> (part * kLanes);
      const auto mask = hn::LoadMaskBits(d, reinterpret_cast<const uint8_t*>(&some));
      float* at = x + i + part * kLanes;
      hn::StoreU(hn::Add(hn::LoadU(d, at), hn::IfThenElse(mask, vminus, vplus)), d, at);
    }
  }
  for (; i < n; ++i) x[i] += (bits[i / 8] >> (i % 8)) & 1 ? minus : plus;
}

}  // namespace HWY_NAMESPACE
}  // namespace tw::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(PackSignsT);
HWY_EXPORT(SubtractBySignT);
HWY_EXPORT(AddBySignT);

SignSums PackSigns(const MessageView& message, uint8_t* bits) {
  return HWY_DYNAMIC_DISPATCH(PackSignsT)(message.buffer.data(), message.addend, message.scale,
                                          message.buffer.size(), bits);
}
void SubtractBySign(std::span<float> x, float plus, float minus) {
  HWY_DYNAMIC_DISPATCH(SubtractBySignT)(x.data(), plus, minus, x.size());
}
void EncodeSigns(const MessageView& message, SignMeans means, uint8_t* mean_bytes, uint8_t* bits) {
  if (DeviceKernels* device = OnDevice()) {
    return device->EncodeSigns(message, means, mean_bytes, bits);
  }
  const size_t d = message.buffer.size();
  const SignSums sums = PackSigns(message, bits);
  const auto mean = [](double sum, size_t count) {
    return count ? static_cast<float>(sum / static_cast<double>(count)) : 0.0f;
  };
  float plus = mean(sums.positive + sums.negative, d), minus = -plus;
  if (means == SignMeans::kEach) {
    plus = mean(sums.positive, d - sums.num_negative);
    minus = -mean(sums.negative, sums.num_negative);
    StoreLE(mean_bytes + sizeof(float), minus);
  }
  StoreLE(mean_bytes, plus);
  SubtractBySign(message.buffer, plus, minus);
}
void DecodeSignsAdd(std::span<float> out, float scale, SignMeans means, const uint8_t* mean_bytes,
                    const uint8_t* bits) {
  if (DeviceKernels* device = OnDevice()) {
    return device->DecodeSignsAdd(out, scale, means, mean_bytes, bits);
  }
  const float plus = LoadLE<float>(mean_bytes);
  const float minus = means == SignMeans::kOne ? -plus : LoadLE<float>(mean_bytes + sizeof(float));
  AddBySign(out, scale * plus, scale * minus, {bits, SignBytes(out.size())});
}

void AddBySign(std::span<float> x, float plus, float minus, ByteSpan bits) {
  TW_CHECK_EQ(bits.size(), SignBytes(x.size()));
  HWY_DYNAMIC_DISPATCH(AddBySignT)(x.data(), plus, minus, bits.data(), x.size());
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
