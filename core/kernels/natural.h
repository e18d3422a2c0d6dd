#pragma once
// Natural compression: magnitudes rounded at random to one of the two neighbouring powers of two.
//
// Body of n elements: n exponent bytes E, then ceil(n / 8) bytes of signs (bit i of the sequence is
// 1 when element i is negative; unused bits are 0). E = 0 stands for 0, else 2^(E - 127); E = 255
// never occurs. Adding 23 random bits to the bits of |x| and keeping the exponent rounds up with
// exactly the right probability, denormals included (they go to 0 or 2^-126). What would round up
// to 2^128 stays 2^127. The same bits on every SIMD target. Thread safe.

#include <bit>
#include <cstdint>
#include <span>

#include "core/base/bytes.h"
#include "core/base/host_device.h"
#include "core/base/status.h"
#include "core/kernels/message_view.h"

namespace tw::kernels {

inline int64_t NaturalBytes(int64_t numel) { return numel + (numel + 7) / 8; }

// Performs the pending addition, writes NaturalBytes(numel) bytes and leaves the residual. Element
// i draws number first_index + i of the stream `key`.
void NaturalEncode(const MessageView& message, uint64_t key, uint64_t first_index, uint8_t* body);
// DataLoss unless `body` has the right size, no exponent is 255 and unused bits are 0.
// Of a body on a device only the size is looked at (device_kernels.h tells why).
Status CheckNatural(ByteSpan body, int64_t numel);
// out[i] += scale * value[i]. REQUIRES: CheckNatural passed.
void NaturalDecodeAdd(const uint8_t* body, float scale, std::span<float> out);

// One element of each, for the tests and odd ends: the exponent byte of x, and what it stands for.
TW_HOST_DEVICE inline uint8_t NaturalExponent(float x, uint32_t random_bits) {
  const uint32_t magnitude = std::bit_cast<uint32_t>(x) & 0x7FFFFFFFu;
  const uint32_t exponent = (magnitude + (random_bits >> 9)) >> 23;
  return static_cast<uint8_t>(exponent < 254 ? exponent : 254);
}
TW_HOST_DEVICE inline float NaturalValue(uint8_t exponent, bool negative) {
  return std::bit_cast<float>(uint32_t{exponent} << 23 | uint32_t{negative} << 31);
}

}  // namespace tw::kernels
