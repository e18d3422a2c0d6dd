// State codes in vectors of at most 8 lanes, for files that compile once per SIMD target. Include
// after hwy/highway.h; the guard toggles because foreach_target.h includes the user again and
// again.
#if defined(TW_KERNELS_STATE_CODES_SIMD_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TW_KERNELS_STATE_CODES_SIMD_H_
#undef TW_KERNELS_STATE_CODES_SIMD_H_
#else
#define TW_KERNELS_STATE_CODES_SIMD_H_
#endif

#include <cstring>

#include "core/kernels/state_codes.h"
#include "core/kernels/state_codes_tables.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using StateD = hn::CappedTag<float, 8>;
using StateDi = hn::RebindToSigned<StateD>;
using StateDu = hn::RebindToUnsigned<StateD>;
using StateV = hn::Vec<StateD>;
using StateVi = hn::Vec<StateDi>;
constexpr size_t kStateLanes = hn::MaxLanes(StateD());
constexpr bool kStateWide = kStateLanes == 8;  // 8 lanes: tables are permutations of registers

// table[index] for eight entries; index of no other lanes than 0..7.
HWY_INLINE StateV Lookup8(const float* table, StateVi index) {
  const StateD d;
  if constexpr (kStateWide) {
    return hn::TableLookupLanes(hn::LoadU(d, table), hn::IndicesFromVec(d, index));
  } else {
    HWY_ALIGN int32_t at[hn::MaxLanes(StateDi())];
    HWY_ALIGN float out[hn::MaxLanes(StateD())];
    hn::Store(index, StateDi(), at);
    for (size_t i = 0; i < kStateLanes; ++i) out[i] = table[at[i]];
    return hn::Load(d, out);
  }
}

// The same for any index, of which the low three bits count.
HWY_INLINE StateV LookupLow3(const float* table, StateVi index) {
#if HWY_ARCH_X86 && !HWY_IS_DEBUG_BUILD
  // The permutation reads no other bits; a debug build of Highway insists on an index in range.
  if constexpr (kStateWide) return Lookup8(table, index);
#endif
  return Lookup8(table, hn::And(index, hn::Set(StateDi(), 7)));
}

// Codes element .. element + kStateLanes - 1 of packed nibbles, each in the low bits of its lane
// with other codes above it; element is a multiple of lanes.
HWY_INLINE StateVi ShiftedNibbles(const uint8_t* packed, size_t element) {
  HWY_ALIGN static constexpr uint32_t kShifts[8] = {0, 4, 8, 12, 16, 20, 24, 28};
  const StateDu du;
  uint32_t word = 0;
  std::memcpy(&word, packed + element / 2, kStateLanes >= 2 ? kStateLanes / 2 : 1);
  if constexpr (kStateLanes == 1) word >>= 4 * (element % 2);
  return hn::BitCast(StateDi(), hn::Shr(hn::Set(du, word), hn::LoadU(du, kShifts)));
}

// The number of a code in the low four bits of each lane.
HWY_INLINE StateV FromTable(const float* table, StateVi shifted) {
  const StateD d;
  const StateVi fourth = hn::ShiftLeft<28>(shifted);
  const StateV upper = LookupLow3(table + 8, shifted), lower = LookupLow3(table, shifted);
  // A blend by sign bits alone is not what narrower targets of Highway do.
  if constexpr (kStateWide) return hn::IfNegativeThenElse(hn::BitCast(d, fourth), upper, lower);
  return hn::IfThenElse(hn::RebindMask(d, hn::Lt(fourth, hn::Zero(StateDi()))), upper, lower);
}

HWY_INLINE StateVi BitsOf(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return hn::Set(StateDi(), bits);
}

// Which zone a magnitude falls in, of no more than eight. A scalar has no halves.
HWY_INLINE StateVi ZoneOf(StateV magnitude, const Zones& zones) {
#if HWY_TARGET != HWY_SCALAR
  const StateDu du;
  const hn::Repartition<uint16_t, StateD> d16;
  const auto halves = [&](uint16_t upper, uint16_t lower) HWY_ATTR {
    return hn::BitCast(d16, hn::Set(du, (uint32_t{upper} << 16) | lower));
  };
  // The lower halves come to zero.
  const auto above = hn::SaturatedSub(hn::BitCast(d16, magnitude), halves(zones.first, 0xFFFF));
  const auto zone = hn::BitCast(du, hn::MulHigh(above, halves(zones.factor, 0)));
  return hn::BitCast(StateDi(), hn::ShiftRight<16>(zone));
#else
  return hn::Set(StateDi(), zones.Of(hn::GetLane(magnitude)));
#endif
}

// The codebook is symmetric but for +1: a count of borders below the magnitude, of which a negative
// number has seven. A tie goes to the lower code, which for a negative number is the larger
// magnitude: its magnitude's bits count one more.
HWY_INLINE StateVi ToSignedCode(StateV normalized) {
  const StateD d;
  const StateDi di;
  const StateVi bits = hn::BitCast(di, normalized);
  const StateVi negative = hn::BroadcastSignBit(bits);  // -1 or 0
  const StateV magnitude = hn::Abs(normalized);
  const StateVi compared = hn::Sub(hn::BitCast(di, magnitude), negative);
  StateVi count;
  if constexpr (kStateWide) {
    const StateVi zone =
        ZoneOf(hn::Add(magnitude, hn::Set(d, kDeSignedZones.lift)), kDeSignedZones);
    const StateVi border = hn::BitCast(di, LookupLow3(kDeSignedBorders.data(), zone));
    count = hn::Sub(zone, hn::VecFromMask(di, hn::Gt(compared, border)));
  } else {
    count = hn::Zero(di);
    for (const float border : kDeSignedBorders) {
      count = hn::Sub(count, hn::VecFromMask(di, hn::Gt(compared, BitsOf(border))));
    }
  }
  // 7 - count of negative numbers, 7 + count of others.
  const StateVi code = hn::Add(hn::Sub(hn::Xor(count, negative), negative), hn::Set(di, 7));
  return hn::Max(code, hn::Zero(di));
}

// A whole number as its bits: the lowest ones are the number's, two's complement; `kWholeBits` is
// what is to be taken away. What Highway converts it checks for overflow too, which costs more.
constexpr float kWhole = 0x1.8p23f;
constexpr uint32_t kWholeBits = 0x4B400000u;
HWY_INLINE StateVi ToWhole(StateV x) {  // to the nearest, a tie to the even one
  return hn::BitCast(StateDi(), hn::Add(x, hn::Set(StateD(), kWhole)));
}

// ceil(16 x - 1.5) is the number of midpoints (i + 1.5) / 16 below x, as a float. The product is
// exact: one rounding or two come to the same. No x is so far above 1 that it needs a limit.
HWY_INLINE StateV ToLinearCode(StateV normalized) {
  const StateD d;
  const StateV shifted = hn::MulSub(normalized, hn::Set(d, 16.0f), hn::Set(d, 1.5f));
  return hn::Max(hn::Ceil(shifted), hn::Zero(d));
}

template <Code4 kCode>
HWY_INLINE StateVi ToCode(StateV normalized) {
  const StateD d;
  const StateDi di;
  if constexpr (kCode == Code4::kDeSigned) {
    return ToSignedCode(normalized);
  } else if constexpr (kCode == Code4::kLinear) {
    return hn::Sub(ToWhole(ToLinearCode(normalized)), hn::Set(di, int32_t{kWholeBits}));
  } else {
    StateVi count = hn::Zero(di);
    for (const float mid : MidpointsOf(kCode)) {
      count = hn::Sub(count,
                      hn::VecFromMask(di, hn::RebindMask(di, hn::Gt(normalized, hn::Set(d, mid)))));
    }
    return count;
  }
}

// The codes of 4 * kStateLanes elements, in byte k of a lane those of vector k, `normalized(k)`.
template <Code4 kCode, class F>
HWY_INLINE StateVi FourCodes(const F& normalized) {
  const StateD d;
  const StateDi di;
  if constexpr (kCode == Code4::kLinear) {
    // Small whole numbers add up exactly as floats.
    const StateV byte = hn::Set(d, 256.0f);
    const auto pair = [&](size_t k) HWY_ATTR {
      return ToWhole(
          hn::MulAdd(ToLinearCode(normalized(k + 1)), byte, ToLinearCode(normalized(k))));
    };
    constexpr uint32_t kExtra = kWholeBits + (kWholeBits << 16);
    return hn::Sub(hn::Add(pair(0), hn::ShiftLeft<16>(pair(2))),
                   hn::Set(di, static_cast<int32_t>(kExtra)));
  } else {
    return hn::Or(
        hn::Or(ToCode<kCode>(normalized(0)), hn::ShiftLeft<8>(ToCode<kCode>(normalized(1)))),
        hn::Or(hn::ShiftLeft<16>(ToCode<kCode>(normalized(2))),
               hn::ShiftLeft<24>(ToCode<kCode>(normalized(3)))));
  }
}

// The numbers of sixteen codes, each multiplied by a scale.
template <Code4 kCode>
class ScaledBook {
 public:
  explicit ScaledBook(float scale) {
    const StateD d;
    scale_ = hn::Set(d, scale);
    part_ = hn::Mul(scale_, hn::Set(d, 1.0f / 16));
    if constexpr (kCode == Code4::kLinear) return;
    for (size_t i = 0; i < 16; i += kStateLanes) {
      hn::Store(hn::Mul(hn::LoadU(d, BookOf(kCode).data() + i), scale_), d, book_ + i);
    }
  }
  // Numbers of codes element .. element + kStateLanes - 1; element is a multiple of lanes.
  HWY_INLINE StateV At(const uint8_t* packed, size_t element) const {
    const StateD d;
    const StateDi di;
    const StateVi shifted = ShiftedNibbles(packed, element);
    if constexpr (kCode == Code4::kLinear) {
      const StateV code = hn::ConvertTo(d, hn::And(shifted, hn::Set(di, 15)));
#if HWY_NATIVE_FMA
      return hn::MulAdd(code, part_, part_);  // (code + 1) * part, rounded once
#else
      return hn::Mul(hn::Add(code, hn::Set(d, 1.0f)), part_);
#endif
    } else {
      return FromTable(book_, shifted);
    }
  }

 private:
  StateV scale_, part_;
  HWY_ALIGN float book_[16];
};

// Codes of 64 elements, of which `normalized(element)` gives a vector, as 32 bytes of two.
template <Code4 kCode, class F>
HWY_INLINE void PackNibbles(const F& normalized, uint8_t* bytes) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kStateWide) {
    // Pairs of lanes are merged to bytes of two codes: the low half of each 64-bit lane has pairs
    // 0..3 of lanes, of four vectors, then of the others. A transposition puts them in order.
    const hn::RepartitionToWide<StateDu> dw;
    const auto merged = [&](size_t from) HWY_ATTR {
      const StateVi sum =
          FourCodes<kCode>([&](size_t k) HWY_ATTR { return normalized(from + 8 * k); });
      const auto pair = hn::BitCast(dw, sum);
      return hn::Or(pair, hn::ShiftRight<28>(pair));
    };
    const auto first = merged(0), second = merged(32);
    const auto all = hn::OddEven(hn::BitCast(StateDu(), hn::ShiftLeft<32>(second)),
                                 hn::BitCast(StateDu(), first));
    const hn::Repartition<uint8_t, StateD> d8;
    const hn::Half<decltype(d8)> d8h;
    const hn::Repartition<uint16_t, decltype(d8h)> d16h;
    HWY_ALIGN static constexpr uint8_t kZip[32] = {0,  8,  1,  9,  2,  10, 3, 11, 4, 12, 5,
                                                   13, 6,  14, 7,  15, 0,  8, 1,  9, 2,  10,
                                                   3,  11, 4,  12, 5,  13, 6, 14, 7, 15};
    const auto zipped = hn::TableLookupBytes(hn::BitCast(d8, all), hn::LoadU(d8, kZip));
    const auto low = hn::BitCast(d16h, hn::LowerHalf(d8h, zipped));
    const auto high = hn::BitCast(d16h, hn::UpperHalf(d8h, zipped));
    hn::StoreU(hn::BitCast(d8h, hn::InterleaveLower(d16h, low, high)), d8h, bytes);
    hn::StoreU(hn::BitCast(d8h, hn::InterleaveUpper(d16h, low, high)), d8h, bytes + 16);
    return;
  }
#endif
  HWY_ALIGN int32_t codes[64];
  for (size_t i = 0; i < 64; i += kStateLanes) {
    hn::Store(ToCode<kCode>(normalized(i)), StateDi(), codes + i);
  }
  for (size_t k = 0; k < 32; ++k) {
    bytes[k] = static_cast<uint8_t>(codes[2 * k] | (codes[2 * k + 1] << 4));
  }
}

// Two vectors at once: each step takes a while, and a second one to work on hides that.
struct TwoVectors {
  StateVi of[2];
};

// Codes less that of zero (unsigned, plus 1) of the vectors `normalized(element)` and the next.
template <Code8 kCode, class F>
HWY_INLINE TwoVectors ToRanks8(const F& normalized, size_t element) {
  const StateD d;
  const StateDi di;
  const StateDu du;
  constexpr const Decades& t = DecadesOf(kCode);
  constexpr bool kSigned = kCode == Code8::kDeSigned;
  StateV x[2], a[2], y[2];
  StateVi run[2];
  TwoVectors rank;
  for (size_t k = 0; k < 2; ++k) {
    x[k] = normalized(element + k * kStateLanes);
    a[k] = kSigned ? hn::Abs(x[k]) : x[k];
  }
  if constexpr (kStateWide) {
    StateVi border[2];
    for (size_t k = 0; k < 2; ++k) run[k] = ZoneOf(a[k], kDecadeZones);
    for (size_t k = 0; k < 2; ++k) {
      border[k] = hn::BitCast(di, LookupLow3(t.border.data(), run[k]));
    }
    for (size_t k = 0; k < 2; ++k) {
      run[k] = hn::Sub(run[k], hn::VecFromMask(di, hn::Gt(hn::BitCast(di, a[k]), border[k])));
    }
  } else {
    for (size_t k = 0; k < 2; ++k) {
      run[k] = hn::Zero(di);
      for (const float border : t.border) {
        run[k] =
            hn::Sub(run[k], hn::VecFromMask(di, hn::Gt(hn::BitCast(di, a[k]), BitsOf(border))));
      }
    }
  }
  for (size_t k = 0; k < 2; ++k) y[k] = LookupLow3(t.slope.data(), run[k]);
  for (size_t k = 0; k < 2; ++k) y[k] = hn::Mul(a[k], y[k]);
  for (size_t k = 0; k < 2; ++k) y[k] = hn::Add(y[k], hn::Set(d, kDecadeStart));
  for (size_t k = 0; k < 2; ++k) {
    y[k] = hn::Min(y[k], hn::Set(d, kDecadeMost));
    if constexpr (!kSigned) y[k] = hn::Max(y[k], hn::Set(d, 1.0f));
  }
  for (size_t k = 0; k < 2; ++k) {
    const auto fixed = hn::Sub(hn::BitCast(du, y[k]), hn::Set(du, kDecadeBits));  // y * 2^23
    rank.of[k] = hn::BitCast(
        di, hn::ShiftRight < kSigned ? 24 : 23 > (hn::Shl(fixed, hn::BitCast(du, run[k]))));
    if constexpr (kSigned) {
      const StateVi negative =
          hn::VecFromMask(di, hn::Lt(hn::BitCast(di, x[k]), hn::Zero(di)));  // -1 or 0
      // There is no -1.
      rank.of[k] = hn::Max(hn::Sub(hn::Xor(rank.of[k], negative), negative), hn::Set(di, -127));
    }
  }
  return rank;
}

// Codes of 32 elements, of which `normalized(element)` gives a vector.
template <Code8 kCode, class F>
HWY_INLINE void PackBytes(const F& normalized, uint8_t* codes) {
  constexpr uint32_t kExtra =
      kCode == Code8::kDeSigned ? 127 : 0xFFFFFFFFu;  // 0 comes as 0 or as 1
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kStateWide) {
    const StateDu du;
    // Byte k of a lane is the code of vector k; then bytes of four lanes are put in order.
    const auto pair = [&](size_t i) HWY_ATTR {
      const TwoVectors rank = ToRanks8<kCode>(normalized, i);
      return hn::BitCast(du, hn::Add(rank.of[0], hn::ShiftLeft<8>(rank.of[1])));
    };
    const auto first = pair(0);
    const auto sum = hn::Add(first, hn::ShiftLeft<16>(pair(16)));
    const hn::Repartition<uint8_t, StateD> d8;
    const hn::Half<decltype(d8)> d8h;
    const hn::Repartition<uint32_t, decltype(d8h)> d32h;
    HWY_ALIGN static constexpr uint8_t kZip[32] = {0,  4,  8, 12, 1,  5,  9, 13, 2,  6, 10,
                                                   14, 3,  7, 11, 15, 0,  4, 8,  12, 1, 5,
                                                   9,  13, 2, 6,  10, 14, 3, 7,  11, 15};
    const auto all = hn::Add(sum, hn::Set(du, kExtra * 0x01010101u));
    const auto zipped = hn::TableLookupBytes(hn::BitCast(d8, all), hn::LoadU(d8, kZip));
    const auto low = hn::BitCast(d32h, hn::LowerHalf(d8h, zipped));
    const auto high = hn::BitCast(d32h, hn::UpperHalf(d8h, zipped));
    hn::StoreU(hn::BitCast(d8h, hn::InterleaveLower(d32h, low, high)), d8h, codes);
    hn::StoreU(hn::BitCast(d8h, hn::InterleaveUpper(d32h, low, high)), d8h, codes + 16);
    return;
  }
#endif
  HWY_ALIGN int32_t ranks[16];
  for (size_t i = 0; i < 32; i += 2 * kStateLanes) {
    const TwoVectors rank = ToRanks8<kCode>(normalized, i);
    for (size_t k = 0; k < 2; ++k) hn::Store(rank.of[k], StateDi(), ranks + k * kStateLanes);
    for (size_t k = 0; k < 2 * kStateLanes; ++k) {
      codes[i + k] = static_cast<uint8_t>(static_cast<uint32_t>(ranks[k]) + kExtra);
    }
  }
}

// The numbers of 8-bit codes, times a scale.
template <Code8 kCode>
class ScaledDecades {
 public:
  explicit ScaledDecades(float scale) {
    const StateD d;
    constexpr const Decades& t = DecadesOf(kCode);
    for (size_t i = 0; i < 8; i += kStateLanes) {
      hn::Store(hn::Mul(hn::LoadU(d, t.step.data() + i), hn::Set(d, scale)), d, step_ + i);
      hn::Store(hn::Mul(hn::LoadU(d, t.base.data() + i), hn::Set(d, scale)), d, base_ + i);
    }
  }
  // Those of kStateLanes codes.
  HWY_INLINE StateV At(const uint8_t* codes) const {
    const StateD d;
    const StateDi di;
    const hn::Rebind<uint8_t, StateDi> d8;
    constexpr bool kSigned = kCode == Code8::kDeSigned;
    const StateVi code = hn::PromoteTo(di, hn::LoadU(d8, codes));
    const StateVi centred = kSigned ? hn::Sub(code, hn::Set(di, 127)) : code;
    const StateV rank = hn::ConvertTo(d, kSigned ? hn::Abs(centred) : centred);
    const StateV one = hn::Set(d, 1.0f);
    const StateVi row =
        hn::ShiftRight<23>(kSigned ? hn::Max(hn::BitCast(di, rank), hn::BitCast(di, one))
                                   : hn::BitCast(di, hn::Add(rank, one)));
    const StateV magnitude = hn::Add(hn::Mul(rank, LookupLow3(step_, row)), LookupLow3(base_, row));
    if constexpr (!kSigned) return magnitude;
    return hn::Or(magnitude, hn::And(hn::BitCast(d, centred), hn::SignBit(d)));
  }

 private:
  HWY_ALIGN float step_[8];
  HWY_ALIGN float base_[8];
};

// Largest magnitude as bits, so that Inf and above it NaN win.
HWY_INLINE StateVi RaiseBits(StateVi most, StateV x) {
  const StateDi di;
  return hn::Max(most, hn::And(hn::BitCast(di, x), hn::Set(di, 0x7FFFFFFF)));
}
HWY_INLINE float ScaleOf(StateVi most) {
  const StateDi di;
  int32_t bits = hn::GetLane(hn::MaxOfLanes(di, most));
  if (bits < 0x00800000) bits = 0;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return scale;
}

HWY_INLINE float InverseOf(float scale) { return scale == 0 ? 0.0f : 1.0f / scale; }

}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
