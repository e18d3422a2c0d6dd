#pragma once
// Uniform quantization with one scale a block: blockquant, QSGD and TernGrad are choices of scale,
// levels and packing of the one loop here.
//
// Body: for every block of `block` elements (the last one may be shorter) one fp32 scale, then its
// codes packed, so that a chunk cut at a multiple of `block` is a contiguous piece of the body.
//   bits >= 2: code = q + 2^(bits-1), q in [-levels, levels], value = q * (scale / levels)
//   bits == 1: code = 1 stands for +scale, 0 for -scale
//   kBits packing: code i occupies bits [i*bits, (i+1)*bits) of the block, little-endian, unused
//     bits 0. kTrits: five codes a byte, byte = sum (q_i + 1) 3^i, missing ones count as 0.
// A block whose scale is 0 decodes to zeros whatever its codes are.
//
// Determinism: every result is a function of the inputs only, not of the SIMD target or the thread.
// Scales below 2^-100 or above 2^120 take a slower path in fp64 that neither overflows nor loses
// denormals. All functions are thread safe.

#include <cstdint>
#include <span>

#include "core/base/bytes.h"
#include "core/base/status.h"
#include "core/kernels/message_view.h"

namespace tw::kernels {

enum class ScaleRule : uint8_t {
  kMaxAbs,   // largest magnitude of the block
  kMeanAbs,  // mean magnitude; for bits == 1 and rounding to nearest
  kL2Norm,   // Euclidean norm, rounded up to the next float
};
enum class Packing : uint8_t { kBits, kTrits };

struct QuantizeSpec {
  int bits = 4;       // of a code, 1..8
  int levels = 7;     // L in [1, 2^(bits-1) - 1]; 1 when bits == 1
  int64_t block = 0;  // elements that share a scale, a multiple of 8; 0: the whole message
  ScaleRule scale = ScaleRule::kMaxAbs;
  Packing packing = Packing::kBits;
  bool stochastic = false;

  bool operator==(const QuantizeSpec&) const = default;
  // Exact size of the body of `numel` elements.
  int64_t BodyBytes(int64_t numel) const;
  // Bytes of the codes of one block, its scale not counted.
  int64_t CodeBytes(int64_t numel) const;
};

// Which random numbers stochastic rounding takes: element i of the message draws number
// first_index + i of the stream.
struct QuantizeStream {
  uint64_t key = 0;
  uint64_t first_index = 0;
};

// Performs the pending addition, writes spec.BodyBytes(numel) bytes and leaves the residual.
void Quantize(const MessageView& message, const QuantizeSpec& spec, QuantizeStream stream,
              uint8_t* body);
// DataLoss unless `body` has the right size, finite scales >= 0, and zeros where nothing is stored.
// Of a body on a device only the size is looked at (device_kernels.h tells why).
Status CheckQuantized(ByteSpan body, int64_t numel, const QuantizeSpec& spec);
// out[i] += scale * value[i]. REQUIRES: CheckQuantized passed.
void DequantizeAdd(const uint8_t* body, const QuantizeSpec& spec, float scale,
                   std::span<float> out);

// One element at a time, for the tests: the same bits.
void QuantizeReference(const MessageView& message, const QuantizeSpec& spec, QuantizeStream stream,
                       uint8_t* body);
void DequantizeAddReference(const uint8_t* body, const QuantizeSpec& spec, float scale,
                            std::span<float> out);

// `numel` codes of `bits` bits into (numel * bits + 7) / 8 bytes, and back.
void PackBits(const uint8_t* codes, int64_t numel, int bits, uint8_t* packed);
void UnpackBits(const uint8_t* packed, int64_t numel, int bits, uint8_t* codes);
// `numel` trits (0, 1, 2) into (numel + 4) / 5 bytes, and back.
void PackTrits(const uint8_t* trits, int64_t numel, uint8_t* packed);
void UnpackTrits(const uint8_t* packed, int64_t numel, uint8_t* trits);

// Scalar pieces that the vector code and the reference share.
struct BlockScale {
  float scale = 0;
  float inverse = 0;  // levels / scale
  float step = 0;     // scale / levels
  bool edge = false;  // scale out of the range in which fp32 arithmetic is safe
};
BlockScale MakeBlockScale(float scale, int levels);
// Quantizes message[i] (addition done) to codes[i]; leaves the residual.
void QuantizeTileReference(float* message, int64_t numel, const QuantizeSpec& spec,
                           const BlockScale& s, QuantizeStream stream, uint8_t* codes);
// What a code stands for.
float CodeValue(uint8_t code, const QuantizeSpec& spec, const BlockScale& s);
// Scale by rule kMeanAbs or kL2Norm, summed in fp64 in a fixed order.
float SumScale(std::span<const float> x, ScaleRule rule);

}  // namespace tw::kernels
