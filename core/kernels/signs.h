#pragma once
// One bit an element: bit i % 8 of byte i / 8 is set when x[i] < 0. Zeros of either sign count as
// positive; padding bits are zero. Sums have the fixed shape of reduce.h, so they do not depend on
// the vector width. Thread safe.

#include <cstdint>
#include <span>

#include "core/base/bytes.h"
#include "core/kernels/message_view.h"

namespace tw::kernels {

inline size_t SignBytes(size_t numel) { return (numel + 7) / 8; }

struct SignSums {
  double positive = 0;  // sum of the elements >= 0
  double negative = 0;  // sum of the magnitudes of the elements < 0
  size_t num_negative = 0;
};

// What is stored for a message: one mean magnitude, fp32 (sign); or the means of what is >= 0 and
// of what is < 0, each 0 where there are none, two fp32 (onebit). The number is how many.
enum class SignMeans : int { kOne = 1, kEach = 2 };

// Performs the pending addition, writes SignBytes(numel) bytes of bits and the means, little-endian
// and at any address, and leaves what they lose:
//   x[i] -= x[i] < 0 ? minus : plus      minus = -plus where there is one mean
// REQUIRES: the message has elements.
void EncodeSigns(const MessageView& message, SignMeans means, uint8_t* mean_bytes, uint8_t* bits);
// out[i] += scale * (bit i ? minus : plus)
void DecodeSignsAdd(std::span<float> out, float scale, SignMeans means, const uint8_t* mean_bytes,
                    const uint8_t* bits);

// What these two are made of.
// Performs the pending addition and writes SignBytes(numel) bytes.
SignSums PackSigns(const MessageView& message, uint8_t* bits);
// x[i] -= x[i] < 0 ? minus : plus. From the end to the start: what PackSigns wrote last is still in
// cache.
void SubtractBySign(std::span<float> x, float plus, float minus);
// x[i] += bit i ? minus : plus. REQUIRES: bits.size() == SignBytes(x.size()).
void AddBySign(std::span<float> x, float plus, float minus, ByteSpan bits);
// Bits beyond numel in the last byte are zero.
inline bool SignPaddingIsZero(ByteSpan bits, size_t numel) {
  return numel % 8 == 0 || (bits.back() >> (numel % 8)) == 0;
}

}  // namespace tw::kernels
