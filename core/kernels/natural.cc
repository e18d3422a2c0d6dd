// The vector side of natural.h; memory is passed over once.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/natural.cc"
#include "hwy/foreach_target.h"  // compiles what follows once per SIMD target
// foreach_target.h must come first
#include <algorithm>
#include <bit>
#include <cmath>

#include "core/kernels/device_kernels.h"
#include "core/kernels/natural.h"
#include "core/kernels/quantize.h"
#include "core/kernels/random_simd.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using DU = hn::RebindToUnsigned<DF>;
using DB = hn::Rebind<uint8_t, DF>;

constexpr int64_t kTile = 1024;  // signs of a tile fill whole bytes

void EncodeAll(const MessageView& message, uint64_t key, uint64_t first_index, uint8_t* body) {
  const DF d;
  const DU du;
  const DB db;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t numel = message.numel();
  uint8_t* signs = body + numel;
  const auto iota = hn::Iota(du, 0);
  const auto vscale = hn::Set(d, message.scale);
  HWY_ALIGN uint8_t negative[kTile];
  for (int64_t at = 0; at < numel; at += kTile) {
    const int64_t n = std::min(kTile, numel - at);
    float* x = message.buffer.data() + at;
    const float* addend = message.addend ? message.addend + at : nullptr;
    const uint64_t index = first_index + static_cast<uint64_t>(at);
    const ElementKey element = ElementKey::Of(key, index);
    const uint32_t low = static_cast<uint32_t>(index);
    // The upper half of the index is folded into the key: a tile that crosses 2^32 goes element by
    // element.
    const bool crosses = low + static_cast<uint64_t>(n) > (uint64_t{1} << 32);
    int64_t i = 0;
    for (; !crosses && i + lanes <= n; i += lanes) {
      auto v = hn::LoadU(d, x + i);
      if (addend) v = hn::Add(v, hn::Mul(vscale, hn::LoadU(d, addend + i)));
      const auto bits = hn::BitCast(du, v);
      const auto sign = hn::And(bits, hn::Set(du, 0x80000000u));
      const auto random =
          ElementBitsV(du, element, hn::Add(iota, hn::Set(du, low + static_cast<uint32_t>(i))));
      const auto up =
          hn::Add(hn::AndNot(hn::Set(du, 0x80000000u), bits), hn::ShiftRight<9>(random));
      const auto exponent = hn::Min(hn::ShiftRight<23>(up), hn::Set(du, 254u));
      const auto value = hn::BitCast(d, hn::Or(sign, hn::ShiftLeft<23>(exponent)));
      hn::StoreU(hn::Sub(v, value), d, x + i);
      hn::StoreU(hn::U8FromU32(exponent), db, body + at + i);
      hn::StoreU(hn::U8FromU32(hn::ShiftRight<31>(sign)), db, negative + i);
    }
    for (; i < n; ++i) {
      if (addend) x[i] = x[i] + message.scale * addend[i];
      body[at + i] = NaturalExponent(x[i], ElementBits(key, index + static_cast<uint64_t>(i)));
      negative[i] = std::signbit(x[i]) ? 1 : 0;
      x[i] -= NaturalValue(body[at + i], negative[i] != 0);
    }
    PackBits(negative, n, 1, signs + at / 8);
  }
}

void DecodeAddAll(const uint8_t* body, float scale, std::span<float> out) {
  const DF d;
  const DU du;
  const DB db;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t numel = static_cast<int64_t>(out.size());
  const uint8_t* signs = body + numel;
  const auto vscale = hn::Set(d, scale);
  HWY_ALIGN uint8_t negative[kTile];
  for (int64_t at = 0; at < numel; at += kTile) {
    const int64_t n = std::min(kTile, numel - at);
    UnpackBits(signs + at / 8, n, 1, negative);
    float* to = out.data() + at;
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
      const auto exponent = hn::PromoteTo(du, hn::LoadU(db, body + at + i));
      const auto sign = hn::PromoteTo(du, hn::LoadU(db, negative + i));
      const auto value =
          hn::BitCast(d, hn::Or(hn::ShiftLeft<31>(sign), hn::ShiftLeft<23>(exponent)));
      hn::StoreU(hn::Add(hn::LoadU(d, to + i), hn::Mul(vscale, value)), d, to + i);
    }
    for (; i < n; ++i) to[i] += scale * NaturalValue(body[at + i], negative[i] != 0);
  }
}

}  // namespace
}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(EncodeAll);
HWY_EXPORT(DecodeAddAll);

void NaturalEncode(const MessageView& message, uint64_t key, uint64_t first_index, uint8_t* body) {
  if (DeviceKernels* device = OnDevice()) {
    return device->NaturalEncode(message, key, first_index, body);
  }
  HWY_DYNAMIC_DISPATCH(EncodeAll)(message, key, first_index, body);
}

void NaturalDecodeAdd(const uint8_t* body, float scale, std::span<float> out) {
  if (DeviceKernels* device = OnDevice()) return device->NaturalDecodeAdd(body, scale, out);
  HWY_DYNAMIC_DISPATCH(DecodeAddAll)(body, scale, out);
}

Status CheckNatural(ByteSpan body, int64_t numel) {
  if (static_cast<int64_t>(body.size()) != NaturalBytes(numel)) {
    return DataLoss("natural: the body has " + std::to_string(body.size()) + " bytes, expected " +
                    std::to_string(NaturalBytes(numel)));
  }
  if (OnDevice()) return OkStatus();
  uint8_t most = 0;
  for (int64_t i = 0; i < numel; ++i) most = std::max(most, body[i]);
  if (most == 255) return DataLoss("natural: an exponent is 255");
  if (numel % 8 != 0 && body.back() >> (numel % 8) != 0) {
    return DataLoss("natural: bits that no sign uses are set");
  }
  return OkStatus();
}

}  // namespace tw::kernels
#endif
