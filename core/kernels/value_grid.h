#pragma once
// Values of a few bits for elements that a sparsifier has chosen: magnitudes on a uniform grid
// between the smallest and the largest of a group, which starts at the smallest, not at 0, so that
// no code is wasted; zeros stay zeros. With T = 2^(bits-1) - 1, a = min |x_i|, b = max |x_i|, step
// = (b - a) / T:
//   q_i = nearest of 0..T to (|x_i| - a) / step;   value = sign(x_i) * (q_i = T ? b : a + q_i*step)
//   code = 2 q_i + (x_i < 0), of `bits` bits;      |error| <= min(|x_i|, step/2)

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include "core/base/bytes.h"
#include "core/base/host_device.h"
#include "core/kernels/topk.h"

namespace tw::kernels {

struct ValueGrid {
  float low = 0, high = 0, step = 0;
  uint32_t top = 1;  // T

  static constexpr size_t kBytes = 2 * sizeof(float);  // fp32 a, fp32 b

  TW_HOST_DEVICE ValueGrid(float low, float high, uint32_t top)
      : low(low), high(high), step((high - low) / static_cast<float>(top)), top(top) {}
  // T for codes of `bits` bits.
  TW_HOST_DEVICE static uint32_t Top(int bits) { return (1u << (bits - 1)) - 1; }
  static ValueGrid Of(std::span<const IndexedValue> group, uint32_t top) {
    float low = std::numeric_limits<float>::max(), high = 0;
    for (const auto e : group) {
      const float m = std::fabs(std::bit_cast<float>(ValueBitsOf(e)));
      low = std::min(low, m);
      high = std::max(high, m);
    }
    return ValueGrid(low, high, top);
  }
  static ValueGrid Load(ByteSpan bytes, uint32_t top) {
    return ValueGrid(LoadLE<float>(bytes.data()), LoadLE<float>(bytes.data() + sizeof(float)), top);
  }
  void Store(uint8_t* to) const {
    StoreLE(to, low);
    StoreLE(to + sizeof(float), high);
  }
  bool valid() const { return low >= 0 && low <= high && std::isfinite(high); }

  TW_HOST_DEVICE uint32_t Code(float x) const {
    uint32_t q = 0;
    if (step != 0) {
      const float at = std::floor((std::fabs(x) - low) / step + 0.5f);
      q = static_cast<uint32_t>(std::min(at, static_cast<float>(top)));
    }
    return 2 * q + (std::bit_cast<uint32_t>(x) >> 31);
  }
  TW_HOST_DEVICE float Value(uint32_t code) const {
    const uint32_t q = code >> 1;
    const float magnitude = q >= top ? high : low + static_cast<float>(q) * step;
    return code & 1 ? -magnitude : magnitude;
  }

  // The part of a group's squared norm that is kept at the least (a = 0, one element b, the others
  // midway to a step).
  static double Kept(uint32_t top, double count) {
    const double t = top;
    return 4 * t * t / (4 * t * t + std::max(0.0, count - 2));
  }
};

}  // namespace tw::kernels
