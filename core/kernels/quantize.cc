// The vector side of quantize.h. A block goes through L1 three times: addition and scale, codes and
// residual, packing; memory sees it once.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/quantize.cc"
#include "hwy/foreach_target.h"  // compiles what follows once per SIMD target
// foreach_target.h must come first
#include <algorithm>
#include <cmath>

#include "core/kernels/device_kernels.h"
#include "core/kernels/quantize.h"
#include "core/kernels/random_simd.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using DU = hn::RebindToUnsigned<DF>;
using DI = hn::RebindToSigned<DF>;
using DB = hn::Rebind<uint8_t, DF>;

constexpr int64_t kTile = 1280;  // a multiple of 8 codes and of 5 trits

// x += scale * addend (when there is one); returns max |x|.
HWY_INLINE float MaterializeMaxAbs(float* HWY_RESTRICT x, const float* HWY_RESTRICT addend,
                                   float scale, int64_t numel) {
  const DF d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto vscale = hn::Set(d, scale);
  auto m0 = hn::Zero(d), m1 = hn::Zero(d);
  int64_t i = 0;
  if (addend) {
    for (; i + 2 * lanes <= numel; i += 2 * lanes) {
      const auto a = hn::Add(hn::LoadU(d, x + i), hn::Mul(vscale, hn::LoadU(d, addend + i)));
      const auto b =
          hn::Add(hn::LoadU(d, x + i + lanes), hn::Mul(vscale, hn::LoadU(d, addend + i + lanes)));
      hn::StoreU(a, d, x + i);
      hn::StoreU(b, d, x + i + lanes);
      m0 = hn::Max(m0, hn::Abs(a));
      m1 = hn::Max(m1, hn::Abs(b));
    }
  } else {
    for (; i + 2 * lanes <= numel; i += 2 * lanes) {
      m0 = hn::Max(m0, hn::Abs(hn::LoadU(d, x + i)));
      m1 = hn::Max(m1, hn::Abs(hn::LoadU(d, x + i + lanes)));
    }
  }
  float most = hn::GetLane(hn::MaxOfLanes(d, hn::Max(m0, m1)));
  for (; i < numel; ++i) {
    if (addend) x[i] = x[i] + scale * addend[i];
    most = std::max(most, std::abs(x[i]));
  }
  return most;
}

// Codes of two or more bits, scale in the safe range.
template <bool kStochastic>
HWY_INLINE void QuantizeTile(float* HWY_RESTRICT x, int64_t numel, const QuantizeSpec& spec,
                             const BlockScale& s, QuantizeStream stream,
                             uint8_t* HWY_RESTRICT codes) {
  const DF d;
  const DU du;
  const DB db;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  // Adding 1.5 * 2^23 + 2^(bits-1) rounds to nearest even and leaves the code in the low byte.
  const auto magic = hn::Set(d, 12582912.0f + static_cast<float>(1 << (spec.bits - 1)));
  const auto inverse = hn::Set(d, s.inverse);
  const auto step = hn::Set(d, s.step);
  const auto most = hn::Set(d, static_cast<float>(spec.levels));
  const auto least = hn::Neg(most);
  const ElementKey key = ElementKey::Of(stream.key, stream.first_index);
  const uint32_t low = static_cast<uint32_t>(stream.first_index);
  auto index = hn::Iota(du, low);  // Iota goes through memory: never inside the loop
  const auto stride = hn::Set(du, static_cast<uint32_t>(lanes));
  int64_t i = 0;
  // The upper half of the index is folded into the key: a tile that crosses 2^32 goes element by
  // element.
  const bool crosses = kStochastic && low + static_cast<uint64_t>(numel) > (uint64_t{1} << 32);
  if (!crosses) {
    for (; i + lanes <= numel; i += lanes) {
      const auto v = hn::LoadU(d, x + i);
      auto place = hn::Mul(v, inverse);
      if constexpr (kStochastic) {
        const auto bits = ElementBitsV(du, key, index);
        index = hn::Add(index, stride);
        place = hn::Add(place, CentredUniformV(d, bits));
        place = hn::Min(hn::Max(place, least), most);
      }
      const auto shifted = hn::Add(place, magic);
      const auto q = hn::Sub(shifted, magic);
      hn::StoreU(hn::Sub(v, hn::Mul(q, step)), d, x + i);
      // Masked, because the scalar target's U8FromU32 saturates.
      const auto code = hn::And(hn::BitCast(du, shifted), hn::Set(du, 0xFFu));
      hn::StoreU(hn::U8FromU32(code), db, codes + i);
    }
  }
  if (i < numel) {
    QuantizeTileReference(x + i, numel - i, spec, s,
                          {stream.key, stream.first_index + static_cast<uint64_t>(i)}, codes + i);
  }
}

#if HWY_TARGET == HWY_SCALAR
void Pack4(const uint8_t* codes, int64_t numel, uint8_t* packed) {
  PackBits(codes, numel, 4, packed);
}
void Unpack4(const uint8_t* packed, int64_t numel, uint8_t* codes) {
  UnpackBits(packed, numel, 4, codes);
}
#else
HWY_INLINE void Pack4(const uint8_t* HWY_RESTRICT codes, int64_t numel,
                      uint8_t* HWY_RESTRICT packed) {
  const hn::ScalableTag<uint16_t> d16;
  const hn::RebindToSigned<decltype(d16)> i16;
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d16));
  const hn::Repartition<uint8_t, decltype(d16)> bytes;
  int64_t i = 0;
  for (; i + 2 * lanes <= numel; i += 2 * lanes) {
    const auto pairs = hn::BitCast(d16, hn::LoadU(bytes, codes + i));
    const auto joined =
        hn::And(hn::Or(pairs, hn::ShiftRight<4>(pairs)), hn::Set(d16, uint16_t{0xFF}));
    hn::StoreU(hn::DemoteTo(d8, hn::BitCast(i16, joined)), d8, packed + i / 2);
  }
  if (i < numel) PackBits(codes + i, numel - i, 4, packed + i / 2);
}

HWY_INLINE void Unpack4(const uint8_t* HWY_RESTRICT packed, int64_t numel,
                        uint8_t* HWY_RESTRICT codes) {
  const hn::ScalableTag<uint16_t> d16;
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d16));
  const hn::Repartition<uint8_t, decltype(d16)> bytes;
  int64_t i = 0;
  for (; i + 2 * lanes <= numel; i += 2 * lanes) {
    const auto v = hn::PromoteTo(d16, hn::LoadU(d8, packed + i / 2));
    const auto pairs = hn::And(hn::Or(v, hn::ShiftLeft<4>(v)), hn::Set(d16, uint16_t{0x0F0F}));
    hn::StoreU(hn::BitCast(bytes, pairs), bytes, codes + i);
  }
  if (i < numel) UnpackBits(packed + i / 2, numel - i, 4, codes + i);
}
#endif

void QuantizeAll(const MessageView& message, const QuantizeSpec& spec, QuantizeStream stream,
                 uint8_t* body) {
  const int64_t numel = message.numel();
  const int64_t block = spec.block == 0 ? numel : spec.block;
  HWY_ALIGN uint8_t codes[kTile];
  for (int64_t at = 0; at < numel; at += block) {
    const int64_t n = std::min(block, numel - at);
    float* x = message.buffer.data() + at;
    const float* addend = message.addend ? message.addend + at : nullptr;
    float scale = MaterializeMaxAbs(x, addend, message.scale, n);
    if (spec.scale != ScaleRule::kMaxAbs) scale = SumScale({x, static_cast<size_t>(n)}, spec.scale);
    StoreLE(body, scale);
    body += sizeof(float);
    const BlockScale s = MakeBlockScale(scale, spec.levels);
    for (int64_t tile = 0; tile < n; tile += kTile) {
      const int64_t count = std::min(kTile, n - tile);
      const QuantizeStream here{stream.key, stream.first_index + static_cast<uint64_t>(at + tile)};
      const bool direct = spec.bits == 8 && spec.packing == Packing::kBits;
      uint8_t* to = direct ? body : codes;
      if (spec.bits == 1 || s.edge) {
        QuantizeTileReference(x + tile, count, spec, s, here, to);
      } else if (spec.stochastic) {
        QuantizeTile<true>(x + tile, count, spec, s, here, to);
      } else {
        QuantizeTile<false>(x + tile, count, spec, s, here, to);
      }
      if (spec.packing == Packing::kTrits) {
        for (int64_t i = 0; i < count; ++i) codes[i] -= 1;
        PackTrits(codes, count, body);
      } else if (spec.bits == 4) {
        Pack4(codes, count, body);
      } else if (!direct) {
        PackBits(codes, count, spec.bits, body);
      }
      body += spec.CodeBytes(count);
    }
  }
}

HWY_INLINE void DequantizeTile(const uint8_t* HWY_RESTRICT codes, int64_t numel,
                               const QuantizeSpec& spec, const BlockScale& s, float scale,
                               float* HWY_RESTRICT out) {
  const DF d;
  const DI di;
  const DB db;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto half = hn::Set(d, static_cast<float>(1 << (spec.bits - 1)));
  const auto step = hn::Set(d, s.step);
  const auto vscale = hn::Set(d, scale);
  int64_t i = 0;
  for (; i + lanes <= numel; i += lanes) {
    const auto code = hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(db, codes + i)));
    const auto value = hn::Mul(hn::Sub(code, half), step);
    hn::StoreU(hn::Add(hn::LoadU(d, out + i), hn::Mul(vscale, value)), d, out + i);
  }
  for (; i < numel; ++i) out[i] += scale * CodeValue(codes[i], spec, s);
}

void DequantizeAll(const uint8_t* body, const QuantizeSpec& spec, float scale,
                   std::span<float> out) {
  const int64_t numel = static_cast<int64_t>(out.size());
  const int64_t block = spec.block == 0 ? numel : spec.block;
  HWY_ALIGN uint8_t codes[kTile];
  for (int64_t at = 0; at < numel; at += block) {
    const int64_t n = std::min(block, numel - at);
    const BlockScale s = MakeBlockScale(LoadLE<float>(body), spec.levels);
    body += sizeof(float);
    for (int64_t tile = 0; tile < n; tile += kTile) {
      const int64_t count = std::min(kTile, n - tile);
      float* to = out.data() + at + tile;
      const uint8_t* from = codes;
      if (spec.packing == Packing::kTrits) {
        UnpackTrits(body, count, codes);
        for (int64_t i = 0; i < count; ++i) codes[i] += 1;
      } else if (spec.bits == 8) {
        from = body;
      } else if (spec.bits == 4) {
        Unpack4(body, count, codes);
      } else {
        UnpackBits(body, count, spec.bits, codes);
      }
      if (spec.bits == 1 || s.edge) {
        for (int64_t i = 0; i < count; ++i) to[i] += scale * CodeValue(from[i], spec, s);
      } else {
        DequantizeTile(from, count, spec, s, scale, to);
      }
      body += spec.CodeBytes(count);
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

void Quantize(const MessageView& message, const QuantizeSpec& spec, QuantizeStream stream,
              uint8_t* body) {
  if (DeviceKernels* device = OnDevice()) return device->Quantize(message, spec, stream, body);
  if (message.numel() == 0) return;
  HWY_DYNAMIC_DISPATCH(QuantizeAll)(message, spec, stream, body);
}

void DequantizeAdd(const uint8_t* body, const QuantizeSpec& spec, float scale,
                   std::span<float> out) {
  if (DeviceKernels* device = OnDevice()) return device->DequantizeAdd(body, spec, scale, out);
  if (out.empty()) return;
  HWY_DYNAMIC_DISPATCH(DequantizeAll)(body, spec, scale, out);
}

}  // namespace tw::kernels
#endif
