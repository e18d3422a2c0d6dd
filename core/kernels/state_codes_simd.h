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

// Minus the number of kDeSignedMidpoints below a magnitude, given by its bits.
HWY_INLINE StateVi CountMidpoints(StateVi magnitude) {
  const StateDi di;
  if constexpr (kStateWide) {
    // One midpoint an octave from 1/64 up, none in some and two in the last; one below.
    const StateVi octave =
        hn::Max(hn::ShiftRight<23>(magnitude), hn::Set(di, kDeSignedOctaves.first));
    const StateVi mid = hn::BitCast(di, LookupLow3(kDeSignedOctaves.midpoint.data(), octave));
    const StateVi count = hn::BitCast(di, LookupLow3(kDeSignedOctaves.below.data(), octave));
    return hn::Add(hn::Add(count, hn::VecFromMask(di, hn::Gt(magnitude, mid))),
                   hn::VecFromMask(di, hn::Gt(magnitude, BitsOf(kDeSignedMidpoints[6]))));
  } else {
    StateVi count = hn::Zero(di);
    for (const float mid : kDeSignedMidpoints) {
      count = hn::Add(count, hn::VecFromMask(di, hn::Gt(magnitude, BitsOf(mid))));
    }
    return count;
  }
}

// The codebook is symmetric but for +1: a count of midpoints below the magnitude. A tie goes to the
// lower code, which for a negative number is the larger magnitude: its magnitude's bits count one
// more.
HWY_INLINE StateVi ToSignedCode(StateV normalized) {
  const StateDi di;
  const StateVi bits = hn::BitCast(di, normalized);
  const StateVi negative = hn::BroadcastSignBit(bits);  // -1 or 0
  const StateVi magnitude = hn::Sub(hn::And(bits, hn::Set(di, 0x7FFFFFFF)), negative);
  // One more above the last midpoint, of positive numbers alone.
  const StateVi count =
      hn::Add(CountMidpoints(magnitude), hn::VecFromMask(di, hn::Gt(bits, BitsOf(kDeSignedTop))));
  // 7 + count of negative numbers, 7 - count of others.
  return hn::Sub(hn::Set(di, 7), hn::Sub(hn::Xor(count, negative), negative));
}

// ceil(16 x - 1.5) is the number of midpoints (i + 1.5) / 16 below x.
HWY_INLINE StateVi ToLinearCode(StateV normalized) {
  const StateD d;
  const StateV shifted =
      hn::Ceil(hn::Sub(hn::Mul(normalized, hn::Set(d, 16.0f)), hn::Set(d, 1.5f)));
  const StateV clamped = hn::Min(hn::Max(shifted, hn::Zero(d)), hn::Set(d, 15.0f));
  return hn::NearestInt(clamped);
}

template <Code4 kCode>
HWY_INLINE StateVi ToCode(StateV normalized) {
  const StateD d;
  const StateDi di;
  if constexpr (kCode == Code4::kDeSigned) {
    return ToSignedCode(normalized);
  } else if constexpr (kCode == Code4::kLinear) {
    return ToLinearCode(normalized);
  } else {
    StateVi count = hn::Zero(di);
    for (const float mid : MidpointsOf(kCode)) {
      count = hn::Sub(count,
                      hn::VecFromMask(di, hn::RebindMask(di, hn::Gt(normalized, hn::Set(d, mid)))));
    }
    return count;
  }
}

// Numbers of codes element .. element + kStateLanes - 1; element is a multiple of lanes.
template <Code4 kCode>
HWY_INLINE StateV FromNibbles(const uint8_t* packed, size_t element) {
  const StateD d;
  const StateDi di;
  const StateVi shifted = ShiftedNibbles(packed, element);
  if constexpr (kCode == Code4::kLinear) {
    const StateVi code = hn::And(shifted, hn::Set(di, 15));
    return hn::Mul(hn::ConvertTo(d, hn::Add(code, hn::Set(di, 1))), hn::Set(d, 1.0f / 16));
  } else {
    return FromTable(BookOf(kCode).data(), shifted);
  }
}

// Gathers the codes of 64 elements, vector by vector in order, and writes them as 32 bytes. With
// eight lanes each 32-bit lane collects a byte from each of four vectors, pairs of lanes are merged
// to bytes of two codes, and a transposition at the end puts them in order.
class NibblePacker {
 public:
  HWY_INLINE void Put(size_t element, StateVi code) {  // element: of the 64, a multiple of lanes
    const StateDi di;
    if constexpr (kStateWide) {
      const size_t k = element / 8;
      const auto placed = hn::ShiftLeftSame(code, static_cast<int>(8 * (k % 4)));
      if (k % 4 == 0) {
        sums_[k / 4] = code;
      } else {
        sums_[k / 4] = hn::Or(sums_[k / 4], placed);
      }
    } else {
      hn::Store(code, di, codes_ + element);
    }
  }
  HWY_INLINE void Finish(uint8_t* bytes) const {
#if HWY_TARGET != HWY_SCALAR
    if constexpr (kStateWide) {
      // The low half of each 64-bit lane: pairs 0..3 of lanes, of four vectors; then of the others.
      const hn::RepartitionToWide<StateDu> dw;
      const auto merged = [&](StateVi sum) HWY_ATTR {
        const auto pair = hn::BitCast(dw, sum);
        return hn::Or(pair, hn::ShiftRight<28>(pair));
      };
      const auto all = hn::OddEven(hn::BitCast(StateDu(), hn::ShiftLeft<32>(merged(sums_[1]))),
                                   hn::BitCast(StateDu(), merged(sums_[0])));
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
    for (size_t k = 0; k < 32; ++k) {
      bytes[k] = static_cast<uint8_t>(codes_[2 * k] | (codes_[2 * k + 1] << 4));
    }
  }

 private:
  StateVi sums_[2];
  HWY_ALIGN int32_t codes_[64];
};

// Which of the eight runs of magnitudes a falls in: zero, and seven decades.
HWY_INLINE StateVi DecadeOf(StateV a, const Decades& t) {
  const StateD d;
  const StateDi di;
  StateVi count = hn::Zero(di);
  for (const float border : t.border) {
    count = hn::Sub(count, hn::VecFromMask(di, hn::RebindMask(di, hn::Gt(a, hn::Set(d, border)))));
  }
  return count;
}

// The rank of a magnitude among those of the codebook: 0 for zero.
HWY_INLINE StateV RankOf(StateV a, const Decades& t) {
  const StateVi decade = DecadeOf(a, t);
  const StateV at =
      hn::Add(hn::Mul(a, Lookup8(t.slope.data(), decade)), Lookup8(t.offset.data(), decade));
  return hn::Min(hn::Ceil(at), Lookup8(t.last.data(), decade));
}

template <Code8 kCode>
HWY_INLINE StateVi ToCode8(StateV normalized) {
  const StateD d;
  const StateDi di;
  constexpr const Decades& t = DecadesOf(kCode);
  const StateV a = kCode == Code8::kDeSigned ? hn::Abs(normalized) : normalized;
  const StateVi rank = hn::NearestInt(RankOf(a, t));
  const StateVi top =
      hn::VecFromMask(di, hn::RebindMask(di, hn::Gt(normalized, hn::Set(d, t.top))));
  const StateVi full = hn::Sub(rank, top);
  if constexpr (kCode == Code8::kDeUnsigned) return full;
  const StateVi negative = hn::BroadcastSignBit(hn::BitCast(di, normalized));
  return hn::Add(hn::Sub(hn::Xor(full, negative), negative), hn::Set(di, 127));
}

template <Code8 kCode>
HWY_INLINE StateV FromCode8(StateVi code) {
  const StateD d;
  const StateDi di;
  constexpr const Decades& t = DecadesOf(kCode);
  const StateVi centred = kCode == Code8::kDeSigned ? hn::Sub(code, hn::Set(di, 127)) : code;
  const StateVi rank = kCode == Code8::kDeSigned ? hn::Abs(centred) : centred;
  // Decade i holds ranks 2^i .. (signed), 2^(i+1) - 1 .. (unsigned): the exponent of a float.
  constexpr int32_t kShift = kCode == Code8::kDeSigned ? 0 : 1;
  const StateVi exponent =
      hn::ShiftRight<23>(hn::BitCast(di, hn::ConvertTo(d, hn::Add(rank, hn::Set(di, kShift)))));
  const StateVi decade = hn::And(hn::Sub(exponent, hn::Set(di, 127 + kShift)), hn::Set(di, 7));
  const StateV number = hn::Add(hn::Mul(hn::ConvertTo(d, rank), Lookup8(t.step.data(), decade)),
                                Lookup8(t.base.data(), decade));
  const StateV magnitude =
      hn::IfThenElseZero(hn::RebindMask(d, hn::Gt(rank, hn::Zero(di))), number);
  if constexpr (kCode == Code8::kDeUnsigned) return magnitude;
  const StateVi sign = hn::And(centred, hn::Set(di, static_cast<int32_t>(0x80000000u)));
  return hn::Or(magnitude, hn::BitCast(d, sign));
}

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

HWY_INLINE StateVi LoadCodes8(const uint8_t* codes) {
  const StateDi di;
  const hn::Rebind<uint8_t, StateDi> d8;
  return hn::PromoteTo(di, hn::LoadU(d8, codes));
}
HWY_INLINE void StoreCodes8(StateVi code, uint8_t* codes) {
  const StateDu du;
  const hn::Rebind<uint8_t, StateDi> d8;
  hn::StoreU(hn::U8FromU32(hn::BitCast(du, code)), d8, codes);
}

}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
