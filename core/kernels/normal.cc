#include "core/kernels/normal.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/normal.cc"
#include "core/kernels/device_kernels.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using DU = hn::CappedTag<uint32_t, 16>;
using DI = hn::RebindToSigned<DU>;
using DF = hn::RebindToFloat<DU>;
using VU = hn::Vec<DU>;
using VF = hn::Vec<DF>;

// The upper halves of the 64-bit products.
HWY_INLINE VU MulHigh(VU a, VU b) {
  const DU du;
#if HWY_TARGET == HWY_SCALAR
  const uint64_t product = uint64_t{hn::GetLane(a)} * hn::GetLane(b);
  return hn::Set(du, static_cast<uint32_t>(product >> 32));
#else
  const hn::RepartitionToWide<DU> dw;
  const auto odd = [&](VU x) { return hn::BitCast(du, hn::ShiftRight<32>(hn::BitCast(dw, x))); };
  const auto of_even = hn::ShiftRight<32>(hn::MulEven(a, b));
  return hn::OddEven(hn::BitCast(du, hn::MulEven(odd(a), odd(b))), hn::BitCast(du, of_even));
#endif
}

struct Words {
  VU w[4];
};

// Philox4x32-10 of counters {low, high, 0, 0}.
HWY_INLINE Words Philox(VU low, uint32_t high, uint64_t key) {
  const DU du;
  const VU m0 = hn::Set(du, 0xD2511F53u), m1 = hn::Set(du, 0xCD9E8D57u);
  VU c0 = low, c1 = hn::Set(du, high), c2 = hn::Zero(du), c3 = c2;
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const VU high0 = MulHigh(c0, m0), low0 = hn::Mul(c0, m0);
    const VU high1 = MulHigh(c2, m1), low1 = hn::Mul(c2, m1);
    c0 = hn::Xor(hn::Xor(high1, c1), hn::Set(du, k0));
    c1 = low1;
    c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(du, k1));
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

HWY_INLINE VF Series(const float (&c)[5], VF x) {
  const DF df;
  VF sum = hn::Set(df, c[0]);
  for (int i = 1; i < 5; ++i) sum = hn::Add(hn::Mul(sum, x), hn::Set(df, c[i]));
  return sum;
}

HWY_INLINE VF Radius(VU bits) {
  const DU du;
  const DI di;
  const DF df;
  const auto count = hn::BitCast(di, hn::Add(hn::ShiftRight<8>(bits), hn::Set(du, 1)));
  const VF u = hn::Mul(hn::ConvertTo(df, count), hn::Set(df, 0x1.0p-24f));
  const VU word = hn::BitCast(du, u);
  const auto e = hn::ShiftRight<23>(hn::BitCast(di, hn::Sub(word, hn::Set(du, normal::kRootHalf))));
  const VU mantissa = hn::Sub(word, hn::ShiftLeft<23>(hn::BitCast(du, e)));
  const VF f = hn::Sub(hn::BitCast(df, mantissa), hn::Set(df, 1.0f));
  const VF s = hn::Div(f, hn::Add(f, hn::Set(df, 2.0f)));
  const VF series = hn::Mul(hn::Add(s, s), Series(normal::LnSeries().at, hn::Mul(s, s)));
  const VF ln = hn::Add(series, hn::Mul(hn::ConvertTo(df, e), hn::Set(df, normal::kLn2)));
  return hn::Sqrt(hn::Mul(ln, hn::Set(df, -2.0f)));
}

struct Turn {
  VF cos, sin;
};

HWY_INLINE Turn TurnBy(VU bits) {
  const DU du;
  const DI di;
  const DF df;
  const VU quarter = hn::ShiftRight<30>(hn::Add(bits, hn::Set(du, 0x20000000u)));
  const auto rest = hn::BitCast(di, hn::Sub(bits, hn::ShiftLeft<30>(quarter)));
  const VF x = hn::Mul(hn::ConvertTo(df, rest), hn::Set(df, normal::kRadiansPerStep));
  const VF x2 = hn::Mul(x, x);
  const VF c = Series(normal::CosSeries().at, x2),
           s = hn::Mul(Series(normal::SinSeries().at, x2), x);
  const VU one = hn::Set(du, 1), sign = hn::Set(du, 0x80000000u);
  const auto odd = hn::RebindMask(df, hn::Eq(hn::And(quarter, one), one));
  const VU cos_sign = hn::And(hn::ShiftLeft<30>(hn::Add(quarter, one)), sign);
  const VU sin_sign = hn::And(hn::ShiftLeft<30>(quarter), sign);
  return {hn::Xor(hn::IfThenElse(odd, s, c), hn::BitCast(df, cos_sign)),
          hn::Xor(hn::IfThenElse(odd, c, s), hn::BitCast(df, sin_sign))};
}

void FillBlocks(uint64_t key, uint64_t first_block, int64_t num_blocks, float scale, float* out,
                int64_t stride) {
  const DU du;
  const DF df;
  const size_t lanes = hn::Lanes(du);
  const VF factor = hn::Set(df, scale);
  const VU lane = hn::Iota(du, 0);  // made in memory, element by element: not in the loop
  for (int64_t b = 0; b < num_blocks; ++b, out += stride) {
    const uint64_t counter = (first_block + static_cast<uint64_t>(b)) * 16;
    for (size_t i = 0; i < 16; i += lanes) {
      const VU low =
          hn::Add(lane, hn::Set(du, static_cast<uint32_t>(counter) + static_cast<uint32_t>(i)));
      const Words words = Philox(low, static_cast<uint32_t>(counter >> 32), key);
      for (size_t pair = 0; pair < 2; ++pair) {
        const VF radius = Radius(words.w[2 * pair]);
        const Turn turn = TurnBy(words.w[2 * pair + 1]);
        float* to = out + 32 * pair + i;
        hn::StoreU(hn::Mul(hn::Mul(radius, turn.cos), factor), df, to);
        hn::StoreU(hn::Mul(hn::Mul(radius, turn.sin), factor), df, to + 16);
      }
    }
  }
}

}  // namespace
}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(FillBlocks);

void FillNormal(uint64_t key, uint64_t first_block, int64_t num_blocks, float scale, float* out,
                int64_t stride) {
  if (DeviceKernels* device = OnDevice()) {
    return device->FillNormal(key, first_block, num_blocks, scale, out, stride);
  }
  HWY_DYNAMIC_DISPATCH(FillBlocks)(key, first_block, num_blocks, scale, out, stride);
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
