#include "core/kernels/topk.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/topk.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: what follows is compiled once per target.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>

#include "core/base/status.h"
#include "core/kernels/device_kernels.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tw::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Moves elements of a just written vector out: bit j of `bits` stands for buffer[at + j].
HWY_INLINE size_t MoveOut(uint32_t bits, size_t at, float* buffer, uint64_t* out, size_t count) {
  while (bits) {
    const size_t index = at + static_cast<size_t>(std::countr_zero(bits));
    bits &= bits - 1;
    uint32_t value;
    std::memcpy(&value, buffer + index, sizeof(value));
    out[count++] = (uint64_t{value} << 32) | index;
    buffer[index] = 0.0f;
  }
  return count;
}

template <class D>
HWY_INLINE uint32_t MaskBits(D d, hn::Mask<D> mask) {
  uint8_t bytes[8];
  hn::StoreMaskBits(d, mask, bytes);
  if (hn::MaxLanes(d) <= 8) return bytes[0];
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return bits;
}

// buffer[i] += s * addend[i] for i in [begin, n), then moves out what has magnitude bits >=
// threshold while it fits `capacity`. Returns the count of moved elements; *overflow tells whether
// one did not fit, after which the pass only adds.
template <bool kAdd>
HWY_INLINE size_t AddAndCollect(float* HWY_RESTRICT buffer, const float* HWY_RESTRICT addend,
                                float s, size_t begin, size_t n, uint32_t threshold,
                                uint64_t* HWY_RESTRICT out, size_t capacity, bool* overflow) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const size_t lanes = hn::Lanes(d);
  const auto vs = hn::Set(d, s);
  const auto magnitude = hn::Set(di, 0x7FFFFFFF);
  const auto below = hn::Set(di, static_cast<int32_t>(threshold) - 1);
  size_t count = 0;
  size_t i = begin;
  bool collecting = true;
  const auto step = [&](size_t at) HWY_ATTR {
    auto v = hn::LoadU(d, buffer + at);
    if (kAdd) {
      v = hn::Add(v, hn::Mul(vs, hn::LoadU(d, addend + at)));
      hn::StoreU(v, d, buffer + at);
    }
    return hn::And(hn::BitCast(di, v), magnitude);
  };
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    const auto m0 = step(i);
    const auto m1 = step(i + lanes);
    const auto m2 = step(i + 2 * lanes);
    const auto m3 = step(i + 3 * lanes);
    const auto any = hn::Max(hn::Max(m0, m1), hn::Max(m2, m3)) > below;
    if (hn::AllFalse(di, any) || !collecting) continue;
    if (count + 4 * lanes > capacity) {
      collecting = false;
      continue;
    }
    count = MoveOut(MaskBits(di, m0 > below), i, buffer, out, count);
    count = MoveOut(MaskBits(di, m1 > below), i + lanes, buffer, out, count);
    count = MoveOut(MaskBits(di, m2 > below), i + 2 * lanes, buffer, out, count);
    count = MoveOut(MaskBits(di, m3 > below), i + 3 * lanes, buffer, out, count);
  }
  for (; i < n; ++i) {
    if (kAdd) buffer[i] += s * addend[i];
    const uint32_t bits = std::bit_cast<uint32_t>(buffer[i]) & 0x7FFFFFFFu;
    if (bits < threshold || !collecting) continue;
    if (count == capacity) {
      collecting = false;
      continue;
    }
    count = MoveOut(1, i, buffer, out, count);
  }
  *overflow = !collecting;
  return count;
}

size_t CollectT(float* buffer, const float* addend, float s, size_t begin, size_t n,
                uint32_t threshold, uint64_t* out, size_t capacity, bool* overflow) {
  if (addend) {
    return AddAndCollect<true>(buffer, addend, s, begin, n, threshold, out, capacity, overflow);
  }
  return AddAndCollect<false>(buffer, addend, s, begin, n, threshold, out, capacity, overflow);
}

}  // namespace HWY_NAMESPACE
}  // namespace tw::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tw::kernels {
namespace {

HWY_EXPORT(CollectT);

constexpr size_t kMinSampled = 1 << 14;  // below, the whole message is in cache anyway
constexpr size_t kSample = 1 << 15;      // with whole strides up to a quarter more
constexpr size_t kFew = 1024;            // sorted faster than counted

uint32_t MagnitudeBits(float x) { return std::bit_cast<uint32_t>(x) & 0x7FFFFFFFu; }
uint32_t MagnitudeOf(IndexedValue e) { return ValueBitsOf(e) & 0x7FFFFFFFu; }

size_t Collect(std::span<float> buffer, const float* addend, float s, size_t begin,
               uint32_t threshold, std::span<IndexedValue> out, bool* overflow) {
  return HWY_DYNAMIC_DISPATCH(CollectT)(buffer.data(), addend, s, begin, buffer.size(), threshold,
                                        out.data(), out.size(), overflow);
}

void PutBack(std::span<float> buffer, std::span<const IndexedValue> moved) {
  for (const IndexedValue e : moved) buffer[IndexOf(e)] = std::bit_cast<float>(ValueBitsOf(e));
}

struct Cut {
  uint32_t magnitude = 0;  // bits of the k-th largest magnitude
  size_t ties = 0;         // how many elements of exactly that magnitude are among the k
};

// The k-th largest of magnitude(0..n-1), 1 <= k <= n, digit by digit from the top.
template <class Magnitude>
Cut RadixCut(size_t n, size_t k, Magnitude magnitude) {
  uint32_t prefix = 0;
  size_t wanted = k;
  constexpr std::array<int, 3> kShifts = {20, 10, 0};
  constexpr std::array<int, 3> kAbove = {31, 20, 10};  // bits from here on are already known
  for (size_t digit = 0; digit < kShifts.size(); ++digit) {
    const int shift = kShifts[digit];
    const uint32_t mask = (1u << (kAbove[digit] - shift)) - 1;
    // Two histograms in turn: runs of equal digits would wait for their own counter.
    std::array<std::array<uint32_t, 2048>, 2> counts = {};
    for (size_t i = 0; i < n; ++i) {
      const uint32_t m = magnitude(i);
      const bool known = (uint64_t{m} >> kAbove[digit]) == (uint64_t{prefix} >> kAbove[digit]);
      counts[i & 1][(m >> shift) & mask] += known;
    }
    uint32_t value = mask;
    for (;; --value) {
      const size_t here = size_t{counts[0][value]} + counts[1][value];
      if (here >= wanted) break;
      wanted -= here;
    }
    prefix |= value << shift;
  }
  return {prefix, wanted};
}

// A threshold that probably somewhat more than k elements reach; 0 when there is no telling.
uint32_t SampledThreshold(const MessageView& message, size_t k, std::span<uint64_t> scratch) {
  const size_t n = message.buffer.size();
  const size_t stride = std::max<size_t>(n / kSample, 4);
  const size_t sample_size = n / stride;
  // One element at a random place of each stretch: a regular grid would follow the columns of a
  // matrix.
  const std::span<uint64_t> sample = scratch.first(sample_size);
  uint64_t mix = 0x9E3779B97F4A7C15ull;
  for (size_t j = 0; j < sample_size; ++j) {
    mix = mix * 6364136223846793005ull + 1442695040888963407ull;
    const size_t i = j * stride + static_cast<size_t>(((mix >> 32) * stride) >> 32);
    const float m =
        message.addend ? message.buffer[i] + message.scale * message.addend[i] : message.buffer[i];
    sample[j] = MagnitudeBits(m);
  }
  const double expected =
      static_cast<double>(k) * static_cast<double>(sample_size) / static_cast<double>(n);
  // Four standard deviations of a binomial count.
  const size_t rank = static_cast<size_t>(expected + 4.0 * std::sqrt(expected) + 8.0);
  if (rank >= sample_size) return 0;
  std::nth_element(sample.begin(), sample.begin() + static_cast<ptrdiff_t>(rank), sample.end(),
                   std::greater<>());
  // Mostly zeros: every other element is a candidate.
  return std::max(static_cast<uint32_t>(sample[rank]), 1u);
}

// Exact selection on a buffer whose addition is done.
size_t TakeFromBuffer(std::span<float> buffer, size_t k, std::span<IndexedValue> out) {
  const Cut cut = RadixCut(buffer.size(), k, [&](size_t i) { return MagnitudeBits(buffer[i]); });
  size_t count = 0;
  size_t ties = cut.ties;
  size_t i = 0;
  for (; ties; ++i) {
    const uint32_t m = MagnitudeBits(buffer[i]);
    if (m < cut.magnitude) continue;
    if (m == cut.magnitude) --ties;
    out[count++] = (uint64_t{std::bit_cast<uint32_t>(buffer[i])} << 32) | i;
    buffer[i] = 0.0f;
  }
  bool overflow = false;
  count += Collect(buffer, nullptr, 0, i, cut.magnitude + 1, out.subspan(count), &overflow);
  TW_CHECK(!overflow);
  return count;
}

// The same of few: a copy that fits the cache, in part sorted.
Cut SmallCut(std::span<const IndexedValue> moved, size_t k) {
  std::array<uint32_t, kFew> magnitudes = {};
  const auto end = std::transform(moved.begin(), moved.end(), magnitudes.begin(), MagnitudeOf);
  std::nth_element(magnitudes.begin(), magnitudes.begin() + static_cast<ptrdiff_t>(k - 1), end,
                   std::greater<>());
  const uint32_t cut = magnitudes[k - 1];
  const auto above = std::count_if(magnitudes.begin(), end, [&](uint32_t m) { return m > cut; });
  return {cut, k - static_cast<size_t>(above)};
}

// Of what was moved out of the buffer, indices ascending, the k largest; the others go back.
// REQUIRES: 1 <= k <= moved.size().
std::span<const IndexedValue> KeepLargest(std::span<float> buffer, size_t k,
                                          std::span<IndexedValue> moved) {
  Cut cut = moved.size() <= kFew
                ? SmallCut(moved, k)
                : RadixCut(moved.size(), k, [&](size_t i) { return MagnitudeOf(moved[i]); });
  size_t kept = 0;
  for (const IndexedValue e : moved) {
    const uint32_t m = MagnitudeOf(e);
    const bool tie = m == cut.magnitude && cut.ties > 0;
    if (m > cut.magnitude || tie) {
      cut.ties -= tie;
      moved[kept++] = e;
    } else {
      buffer[IndexOf(e)] = std::bit_cast<float>(ValueBitsOf(e));
    }
  }
  return moved.first(kept);
}

}  // namespace

size_t TopKScratch(size_t numel, size_t k) {
  return std::min(numel, k + std::max(k / 2, numel / 64) + kSample * 5 / 4) + kTakeSlack;
}

std::span<const IndexedValue> TakeTopK(const MessageView& message, size_t k,
                                       std::span<IndexedValue> scratch) {
  if (DeviceKernels* device = OnDevice()) return device->TakeTopK(message, k, scratch);
  const std::span<float> buffer = message.buffer;
  TW_CHECK_LE(k, buffer.size());
  TW_CHECK_GE(scratch.size(), TopKScratch(buffer.size(), k));
  TW_CHECK_LE(buffer.size(), size_t{0xFFFFFFFFu});
  const uint32_t threshold =
      buffer.size() < kMinSampled ? 0 : SampledThreshold(message, k, scratch);
  // No guess: nothing reaches this magnitude, the pass only adds.
  const uint32_t bound = threshold ? threshold : 0x7FFFFFFFu;
  bool overflow = false;
  size_t count = Collect(buffer, message.addend, message.scale, 0, bound, scratch, &overflow);
  if (k == 0) {
    PutBack(buffer, scratch.first(count));
    return {};
  }
  if (overflow || count < k) {
    PutBack(buffer, scratch.first(count));
    TW_CHECK_EQ(TakeFromBuffer(buffer, k, scratch), k);
    return scratch.first(k);
  }
  return KeepLargest(buffer, k, scratch.first(count));
}

std::span<const IndexedValue> TakeTopKNear(const MessageView& message, size_t k,
                                           std::span<IndexedValue> scratch, float* near) {
  if (DeviceKernels* device = OnDevice()) return device->TakeTopK(message, k, scratch);
  const std::span<float> buffer = message.buffer;
  TW_CHECK_LE(k, buffer.size());
  TW_CHECK_GE(scratch.size(), TopKScratch(buffer.size(), k));
  MessageView rest = message;
  std::span<const IndexedValue> taken;
  float guess = k > 0 ? 0.9f * *near : 0;
  for (int tries = 0; tries < 4 && guess > 0 && taken.empty(); ++tries, guess *= 0.6f) {
    bool overflow = false;
    const size_t count =
        Collect(buffer, rest.addend, rest.scale, 0, MagnitudeBits(guess), scratch, &overflow);
    rest.addend = nullptr;
    if (!overflow && count >= k) {
      taken = KeepLargest(buffer, k, scratch.first(count));
    } else {
      PutBack(buffer, scratch.first(count));
    }
  }
  if (taken.empty()) taken = TakeTopK(rest, k, scratch);
  uint32_t least = taken.empty() ? 0 : ~0u;
  for (const IndexedValue e : taken) least = std::min(least, MagnitudeOf(e));
  *near = std::bit_cast<float>(least);
  return taken;
}

size_t TakeAbove(const MessageView& message, float threshold, std::span<IndexedValue> scratch) {
  TW_CHECK_GE(scratch.size(), kTakeSlack);
  if (DeviceKernels* device = OnDevice()) return device->TakeAbove(message, threshold, scratch);
  bool overflow = false;
  const uint32_t bound = MagnitudeBits(threshold) + 1;
  const size_t count =
      Collect(message.buffer, message.addend, message.scale, 0, bound, scratch, &overflow);
  if (!overflow && count + kTakeSlack <= scratch.size()) return count;
  PutBack(message.buffer, scratch.first(count));
  size_t all = 0;
  for (const float x : message.buffer) all += MagnitudeBits(x) >= bound;
  return all;
}

}  // namespace tw::kernels
#endif  // HWY_ONCE
