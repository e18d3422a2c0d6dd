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
