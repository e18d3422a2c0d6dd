#include "core/kernels/state_codes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/state_codes.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: what follows is compiled once per target.
#include <algorithm>
#include <bit>
#include <cmath>

#include "core/base/status.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/float16.h"
#include "core/kernels/random_simd.h"
#include "core/kernels/state_codes_simd.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels::HWY_NAMESPACE {

// 64 elements; `packed` has 32 bytes.
template <Code4 kCode>
HWY_INLINE void Quantize64(const float* x, float inverse, uint8_t* packed) {
  const StateD d;
  PackNibbles<kCode>(
      [&](size_t i) HWY_ATTR { return hn::Mul(hn::LoadU(d, x + i), hn::Set(d, inverse)); }, packed);
}

template <Code4 kCode>
HWY_INLINE void Dequantize64(const uint8_t* packed, const ScaledBook<kCode>& book, float* out) {
  for (size_t i = 0; i < 64; i += kStateLanes) {
    hn::StoreU(book.At(packed, i), StateD(), out + i);
  }
}

// n <= 64 elements through padded copies.
template <Code4 kCode>
void QuantizeRest(const float* x, size_t n, float inverse, uint8_t* packed) {
  HWY_ALIGN float padded[64] = {};
  HWY_ALIGN uint8_t bytes[32];
  std::copy_n(x, n, padded);
  Quantize64<kCode>(padded, inverse, bytes);
  if (n % 2) bytes[n / 2] &= 0x0F;
  std::copy_n(bytes, (n + 1) / 2, packed);
}

template <Code4 kCode>
void DequantizeRest(const uint8_t* packed, size_t n, const ScaledBook<kCode>& book, float* out) {
  HWY_ALIGN float padded[64];
  HWY_ALIGN uint8_t bytes[36] = {};
  std::copy_n(packed, (n + 1) / 2, bytes);
  Dequantize64<kCode>(bytes, book, padded);
  std::copy_n(padded, n, out);
}

template <Code4 kCode>
void QuantizeSpan(const float* x, size_t n, float inverse, uint8_t* packed) {
  size_t i = 0;
  for (; i + 64 <= n; i += 64) Quantize64<kCode>(x + i, inverse, packed + i / 2);
  if (i < n) QuantizeRest<kCode>(x + i, n - i, inverse, packed + i / 2);
}

template <Code4 kCode>
void DequantizeSpan(const uint8_t* packed, size_t n, float scale, float* out) {
  const ScaledBook<kCode> book(scale);
  size_t i = 0;
  for (; i + 64 <= n; i += 64) Dequantize64<kCode>(packed + i / 2, book, out + i);
  if (i < n) DequantizeRest<kCode>(packed + i / 2, n - i, book, out + i);
}

float SpanScale(const float* x, size_t n) {
  const StateD d;
  StateVi most = hn::Zero(StateDi());
  size_t i = 0;
  for (; i + kStateLanes <= n; i += kStateLanes) most = RaiseBits(most, hn::LoadU(d, x + i));
  if (i < n) {
    HWY_ALIGN float rest[8] = {};
    std::copy_n(x + i, n - i, rest);
    most = RaiseBits(most, hn::Load(d, rest));
  }
  return ScaleOf(most);
}

template <Code4 kCode>
void EncodeBlocksOf(const float* x, size_t n, uint8_t* packed, float* scales) {
  for (size_t i = 0; i < n; i += kStateBlock4) {
    const size_t size = std::min<size_t>(kStateBlock4, n - i);
    const float scale = SpanScale(x + i, size);
    QuantizeSpan<kCode>(x + i, size, InverseOf(scale), packed + i / 2);
    *scales++ = scale;
  }
}

template <Code4 kCode>
void DecodeBlocksOf(const uint8_t* packed, const float* scales, size_t n, float* out) {
  for (size_t i = 0; i < n; i += kStateBlock4) {
    const size_t size = std::min<size_t>(kStateBlock4, n - i);
    DequantizeSpan<kCode>(packed + i / 2, size, *scales++, out + i);
  }
}

// Runs f.operator()<kCode>() for the code; the only place that turns the value into a type.
template <class F>
void WithCode(Code4 code, F&& f) {
  switch (code) {
    case Code4::kDeSigned:
      return f.template operator()<Code4::kDeSigned>();
    case Code4::kDeUnsigned:
      return f.template operator()<Code4::kDeUnsigned>();
    case Code4::kDeNoZero:
      return f.template operator()<Code4::kDeNoZero>();
    case Code4::kLinear:
      return f.template operator()<Code4::kLinear>();
  }
}

void QuantizeUnit(Code4 code, const float* x, size_t n, uint8_t* packed) {
  WithCode(code, [&]<Code4 kCode>() { QuantizeSpan<kCode>(x, n, 1.0f, packed); });
}
void DequantizeUnit(Code4 code, const uint8_t* packed, size_t n, float* out) {
  WithCode(code, [&]<Code4 kCode>() { DequantizeSpan<kCode>(packed, n, 1.0f, out); });
}
void EncodeAll4(Code4 code, const float* x, size_t n, uint8_t* packed, float* scales) {
  WithCode(code, [&]<Code4 kCode>() { EncodeBlocksOf<kCode>(x, n, packed, scales); });
}
void DecodeAll4(Code4 code, const uint8_t* packed, const float* scales, size_t n, float* out) {
  WithCode(code, [&]<Code4 kCode>() { DecodeBlocksOf<kCode>(packed, scales, n, out); });
}

template <Code8 kCode>
void EncodeBlocksOf8(const float* x, size_t n, uint8_t* codes, float* scales) {
  const StateD d;
  for (size_t i = 0; i < n; i += kStateBlock8) {
    const size_t end = std::min<size_t>(i + kStateBlock8, n);
    const float scale = SpanScale(x + i, end - i);
    const StateV inverse = hn::Set(d, InverseOf(scale));
    const auto pack = [&](const float* from, uint8_t* out) HWY_ATTR {
      PackBytes<kCode>(
          [&](size_t at) HWY_ATTR { return hn::Mul(hn::LoadU(d, from + at), inverse); }, out);
    };
    size_t j = i;
    for (; j + 32 <= end; j += 32) pack(x + j, codes + j);
    if (j < end) {
      HWY_ALIGN float rest[32] = {};
      HWY_ALIGN uint8_t out[32];
      std::copy_n(x + j, end - j, rest);
      pack(rest, out);
      std::copy_n(out, end - j, codes + j);
    }
    *scales++ = scale;
  }
}

template <Code8 kCode>
void DecodeBlocksOf8(const uint8_t* codes, const float* scales, size_t n, float* out) {
  const StateD d;
  for (size_t i = 0; i < n; i += kStateBlock8) {
    const size_t end = std::min<size_t>(i + kStateBlock8, n);
    const ScaledDecades<kCode> book(*scales++);
    size_t j = i;
    for (; j + kStateLanes <= end; j += kStateLanes) hn::StoreU(book.At(codes + j), d, out + j);
    if (j < end) {
      HWY_ALIGN uint8_t rest[8] = {};
      HWY_ALIGN float numbers[8];
      std::copy_n(codes + j, end - j, rest);
      hn::Store(book.At(rest), d, numbers);
      std::copy_n(numbers, end - j, out + j);
    }
  }
}

void EncodeAll8(Code8 code, const float* x, size_t n, uint8_t* codes, float* scales) {
  code == Code8::kDeSigned ? EncodeBlocksOf8<Code8::kDeSigned>(x, n, codes, scales)
                           : EncodeBlocksOf8<Code8::kDeUnsigned>(x, n, codes, scales);
}
void DecodeAll8(Code8 code, const uint8_t* codes, const float* scales, size_t n, float* out) {
  code == Code8::kDeSigned ? DecodeBlocksOf8<Code8::kDeSigned>(codes, scales, n, out)
                           : DecodeBlocksOf8<Code8::kDeUnsigned>(codes, scales, n, out);
}

// Raises the maxima of columns to the elements of a row; returns the larger of `most` and these. A
// NaN raises nothing.
float RaiseRow(const float* x, size_t n, float most, float* col_max) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto larger = [&](auto old, auto value)
                          HWY_ATTR { return hn::IfThenElse(hn::Lt(old, value), value, old); };
  auto all = hn::Set(d, most);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto value = hn::LoadU(d, x + i);
    all = larger(all, value);
    hn::StoreU(larger(hn::LoadU(d, col_max + i), value), d, col_max + i);
  }
  most = hn::GetLane(hn::MaxOfLanes(d, all));
  for (; i < n; ++i) {
    most = most < x[i] ? x[i] : most;
    col_max[i] = col_max[i] < x[i] ? x[i] : col_max[i];
  }
  return most;
}

void RowScales(float row_max, const float* col_max, size_t n, float* scales) {
  const hn::ScalableTag<float> d;
  const auto limit = hn::Set(d, row_max);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto col = hn::LoadU(d, col_max + i);
    hn::StoreU(hn::IfThenElse(hn::Lt(col, limit), col, limit), d, scales + i);
  }
  for (; i < n; ++i) scales[i] = col_max[i] < row_max ? col_max[i] : row_max;
}

void DivideSpan(const float* x, size_t n, float* scales) {
  constexpr float kLeast = 1.17549435e-38f;
  const hn::ScalableTag<float> d;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto scale = hn::LoadU(d, scales + i);
    const auto quotient = hn::Div(hn::LoadU(d, x + i), scale);
    hn::StoreU(hn::IfThenZeroElse(hn::Lt(scale, hn::Set(d, kLeast)), quotient), d, scales + i);
  }
  for (; i < n; ++i) scales[i] = scales[i] < kLeast ? 0.0f : x[i] / scales[i];
}

void RoundSpanToBf16(const float* x, size_t n, uint64_t key, uint64_t first, uint16_t* out) {
  const hn::ScalableTag<uint32_t> d;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  const size_t lanes = hn::Lanes(d);
  const auto iota = hn::Iota(d, 0);  // goes through memory: never inside the loop
  size_t i = 0;
  while (i < n) {
    // Elements that share the upper half of their index.
    const uint64_t at = first + i;
    const ElementKey element_key = ElementKey::Of(key, at);
    const size_t end =
        i + static_cast<size_t>(std::min<uint64_t>(n - i, 0x100000000ull - (at & 0xFFFFFFFFull)));
    for (; i + lanes <= end; i += lanes) {
      const auto index = hn::Add(iota, hn::Set(d, static_cast<uint32_t>(first + i)));
      const auto random = hn::ShiftRight<16>(ElementBitsV(d, element_key, index));
      const auto bits = hn::BitCast(d, hn::LoadU(hn::RebindToFloat<decltype(d)>(), x + i));
      const auto special = hn::Eq(hn::And(bits, hn::Set(d, 0x7F800000u)), hn::Set(d, 0x7F800000u));
      if (!hn::AllFalse(d, special)) {
        for (size_t k = i; k < i + lanes; ++k) {
          out[k] =
              FloatToBf16Random(x[k], ElementBits(element_key, static_cast<uint32_t>(first + k)));
        }
        continue;
      }
      const auto rounded = hn::ShiftRight<16>(hn::Add(bits, random));
      hn::StoreU(hn::TruncateTo(d16, rounded), d16, out + i);
    }
    for (; i < end; ++i) {
      out[i] = FloatToBf16Random(x[i], ElementBits(element_key, static_cast<uint32_t>(first + i)));
    }
  }
}

}  // namespace tw::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {

HWY_EXPORT(QuantizeUnit);
HWY_EXPORT(DequantizeUnit);
HWY_EXPORT(EncodeAll4);
HWY_EXPORT(DecodeAll4);
HWY_EXPORT(EncodeAll8);
HWY_EXPORT(DecodeAll8);
HWY_EXPORT(RoundSpanToBf16);
HWY_EXPORT(RaiseRow);
HWY_EXPORT(RowScales);
HWY_EXPORT(DivideSpan);

namespace {

void CheckBlocks(size_t numel, int64_t block, size_t codes, int64_t code_bytes, size_t scales) {
  TW_CHECK_EQ(static_cast<int64_t>(codes), code_bytes);
  TW_CHECK_EQ(static_cast<int64_t>(scales), Blocks(static_cast<int64_t>(numel), block));
}

std::array<float, 256> MakeBook(Code8 code) {
  const Decades& t = DecadesOf(code);
  const bool is_signed = code == Code8::kDeSigned;
  const auto number = [&](int rank) {
    const float counted = static_cast<float>(is_signed ? std::max(rank, 1) : rank + 1);
    const size_t row = (std::bit_cast<uint32_t>(counted) >> 23) % 8;
    return static_cast<float>(rank) * t.step[row] + t.base[row];
  };
  std::array<float, 256> book{};
  for (int i = 0; i < 256; ++i) {
    const int rank = is_signed ? std::abs(i - 127) : i;
    book[static_cast<size_t>(i)] = is_signed && i < 127 ? -number(rank) : number(rank);
  }
  return book;
}

}  // namespace

const std::array<float, 16>& Codebook(Code4 code) { return BookOf(code); }

const std::array<float, 15>& Midpoints(Code4 code) {
  static const std::array<float, 15> all[] = {
      MidpointsOf(Code4::kDeSigned), MidpointsOf(Code4::kDeUnsigned), MidpointsOf(Code4::kDeNoZero),
      MidpointsOf(Code4::kLinear)};
  return all[static_cast<size_t>(code)];
}

uint8_t NearestCode(Code4 code, float normalized) {
  uint8_t count = 0;
  for (const float mid : Midpoints(code)) count = static_cast<uint8_t>(count + (mid < normalized));
  return count;
}

const std::array<float, 256>& Codebook(Code8 code) {
  static const std::array<float, 256> books[] = {MakeBook(Code8::kDeSigned),
                                                 MakeBook(Code8::kDeUnsigned)};
  return books[static_cast<size_t>(code)];
}

uint8_t NearestCode(Code8 code, float normalized) {
  const Decades& t = DecadesOf(code);
  const bool is_signed = code == Code8::kDeSigned;
  const float a = is_signed ? std::fabs(normalized) : normalized;
  uint32_t run = 0;
  for (const float border : t.border) run += a > border;
  float y = std::min(a * t.slope[run % 8] + kDecadeStart, kDecadeMost);
  if (!is_signed) y = std::max(y, 1.0f);
  const uint32_t fixed = (std::bit_cast<uint32_t>(y) - kDecadeBits) << run;
  const int rank = is_signed ? static_cast<int>(fixed >> 24) : static_cast<int>(fixed >> 23) - 1;
  if (!is_signed) return static_cast<uint8_t>(rank);
  // There is no -1.
  return static_cast<uint8_t>(127 + (std::signbit(normalized) ? -std::min(rank, 127) : rank));
}

void QuantizeUnit4(Code4 code, std::span<const float> x, std::span<uint8_t> packed) {
  TW_CHECK_EQ(static_cast<int64_t>(packed.size()), NibbleBytes(static_cast<int64_t>(x.size())));
  HWY_DYNAMIC_DISPATCH(QuantizeUnit)(code, x.data(), x.size(), packed.data());
}
void DequantizeUnit4(Code4 code, std::span<const uint8_t> packed, std::span<float> out) {
  TW_CHECK_EQ(static_cast<int64_t>(packed.size()), NibbleBytes(static_cast<int64_t>(out.size())));
  HWY_DYNAMIC_DISPATCH(DequantizeUnit)(code, packed.data(), out.size(), out.data());
}

void EncodeBlocks4(Code4 code, std::span<const float> x, std::span<uint8_t> packed,
                   std::span<float> scales) {
  CheckBlocks(x.size(), kStateBlock4, packed.size(), NibbleBytes(static_cast<int64_t>(x.size())),
              scales.size());
  if (DeviceKernels* device = OnDevice()) return device->EncodeBlocks4(code, x, packed, scales);
  HWY_DYNAMIC_DISPATCH(EncodeAll4)(code, x.data(), x.size(), packed.data(), scales.data());
}
void DecodeBlocks4(Code4 code, std::span<const uint8_t> packed, std::span<const float> scales,
                   std::span<float> out) {
  CheckBlocks(out.size(), kStateBlock4, packed.size(),
              NibbleBytes(static_cast<int64_t>(out.size())), scales.size());
  if (DeviceKernels* device = OnDevice()) return device->DecodeBlocks4(code, packed, scales, out);
  HWY_DYNAMIC_DISPATCH(DecodeAll4)(code, packed.data(), scales.data(), out.size(), out.data());
}

void EncodeBlocks8(Code8 code, std::span<const float> x, std::span<uint8_t> codes,
                   std::span<float> scales) {
  CheckBlocks(x.size(), kStateBlock8, codes.size(), static_cast<int64_t>(x.size()), scales.size());
  if (DeviceKernels* device = OnDevice()) return device->EncodeBlocks8(code, x, codes, scales);
  HWY_DYNAMIC_DISPATCH(EncodeAll8)(code, x.data(), x.size(), codes.data(), scales.data());
}
void DecodeBlocks8(Code8 code, std::span<const uint8_t> codes, std::span<const float> scales,
                   std::span<float> out) {
  CheckBlocks(out.size(), kStateBlock8, codes.size(), static_cast<int64_t>(out.size()),
              scales.size());
  if (DeviceKernels* device = OnDevice()) return device->DecodeBlocks8(code, codes, scales, out);
  HWY_DYNAMIC_DISPATCH(DecodeAll8)(code, codes.data(), scales.data(), out.size(), out.data());
}

namespace {

// Calls f(row, column, element, count) for the runs of a row in the n elements from `first` on.
template <class F>
void ForRows(int64_t first, size_t n, size_t cols, F&& f) {
  for (size_t i = 0; i < n;) {
    const size_t at = static_cast<size_t>(first) + i, row = at / cols, col = at % cols;
    const size_t run = std::min(cols - col, n - i);
    f(row, col, i, run);
    i += run;
  }
}

}  // namespace

void RaiseRank1(std::span<const float> x, int64_t first, std::span<float> row_max,
                std::span<float> col_max) {
  ForRows(first, x.size(), col_max.size(), [&](size_t row, size_t col, size_t i, size_t run) {
    row_max[row] =
        HWY_DYNAMIC_DISPATCH(RaiseRow)(x.data() + i, run, row_max[row], col_max.data() + col);
  });
}

void Rank1Scales(int64_t first, std::span<const float> row_max, std::span<const float> col_max,
                 std::span<float> scales) {
  ForRows(first, scales.size(), col_max.size(), [&](size_t row, size_t col, size_t i, size_t run) {
    HWY_DYNAMIC_DISPATCH(RowScales)(row_max[row], col_max.data() + col, run, scales.data() + i);
  });
}

void DivideByScales(std::span<const float> x, std::span<float> scales) {
  TW_CHECK_EQ(x.size(), scales.size());
  HWY_DYNAMIC_DISPATCH(DivideSpan)(x.data(), x.size(), scales.data());
}

void RoundToBf16(std::span<const float> x, uint64_t key, uint64_t first, std::span<uint16_t> out) {
  if (DeviceKernels* device = OnDevice()) return device->RoundToBf16(x, key, first, out);
  HWY_DYNAMIC_DISPATCH(RoundSpanToBf16)(x.data(), x.size(), key, first, out.data());
}

void WidenBf16(std::span<const uint16_t> x, std::span<float> out) {
  if (DeviceKernels* device = OnDevice()) return device->WidenBf16(x, out);
  for (size_t i = 0; i < x.size(); ++i) {
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(x[i]) << 16);
  }
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
