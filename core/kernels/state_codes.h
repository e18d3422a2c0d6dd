#pragma once
// Quantizers of optimizer states: 16 or 256 numbers between -1 and 1, a scale for each block.
//
//   code(x) = the nearest number of the codebook to x / scale;   x ~ codebook[code] * scale
//
// Codebooks of 4 bits (Li, Chen, Zhu, arXiv 2309.01507); ties go to the lower code:
//   kDeSigned    "dynamic exponent": 0, seven magnitudes of both signs from 0.0055 to 0.8875, and
//   +1 kDeUnsigned  0, fourteen from 0.00325 to 0.94375, and 1 kDeNoZero    kDeUnsigned with 0
//   replaced by its neighbour: 15 distinct numbers kLinear      1/16, 2/16 ... 1: no zero, so that
//   what divides by the root stays tame
// Of 8 bits (Dettmers et al., arXiv 2110.02861): 0, 1, and seven decades from 5.5e-7 up, signed
// 2^i numbers each (there is no -1), unsigned 2^(i+1); within 1e-6 of a midpoint either
// neighbour is taken. The numbers are formed as a product and a sum in fp32 from steps times the
// scale, and with scale 1 are within 1e-6 of the published ones.
//
// Layout: element 2k in the low nibble of byte k, 2k+1 in the high one, an unused high nibble is 0.
// One fp32 scale a block of 128 (4 bits) or 256 (8 bits) elements counted from the tensor's start,
// the last block may be shorter. A device kernel can keep this layout: a warp a block.
//
// The scale is the largest magnitude of the block. Below the smallest normal float (1.2e-38) the
// block rests as zeros with scale 0. A NaN or Inf makes the scale NaN or Inf and the block's
// numbers NaN or Inf when read back: it shows, and spoils nothing outside of its block.
//
// Multiplies and adds are kept apart and there are no sums over elements: bits do not depend on
// vector width. Spans may be unaligned or empty. Thread safe.

#include <array>
#include <cstdint>
#include <span>

namespace tw::kernels {

inline constexpr int64_t kStateBlock4 = 128, kStateBlock8 = 256;

constexpr int64_t Blocks(int64_t numel, int64_t block) { return (numel + block - 1) / block; }
constexpr int64_t NibbleBytes(int64_t numel) { return (numel + 1) / 2; }

enum class Code4 : uint8_t { kDeSigned = 0, kDeUnsigned = 1, kDeNoZero = 2, kLinear = 3 };

const std::array<float, 16>& Codebook(Code4 code);
// midpoint[i] between codes i and i + 1.
const std::array<float, 15>& Midpoints(Code4 code);
// One number, the plain way: what the vector kernels are tested against.
uint8_t NearestCode(Code4 code, float normalized);

// Already normalized numbers, without scales: packed[k] holds elements 2k and 2k+1.
// REQUIRES: packed.size() == NibbleBytes(x.size()).
void QuantizeUnit4(Code4 code, std::span<const float> x, std::span<uint8_t> packed);
void DequantizeUnit4(Code4 code, std::span<const uint8_t> packed, std::span<float> out);

// Whole blocks from the start of `x`; the last one may be partial.
// REQUIRES: scales.size() == Blocks(x.size(), kStateBlock4).
void EncodeBlocks4(Code4 code, std::span<const float> x, std::span<uint8_t> packed,
                   std::span<float> scales);
void DecodeBlocks4(Code4 code, std::span<const uint8_t> packed, std::span<const float> scales,
                   std::span<float> out);

enum class Code8 : uint8_t { kDeSigned = 0, kDeUnsigned = 1 };

// Numbers of the codebook in ascending order, and the plain nearest code, as above.
const std::array<float, 256>& Codebook(Code8 code);
uint8_t NearestCode(Code8 code, float normalized);
void EncodeBlocks8(Code8 code, std::span<const float> x, std::span<uint8_t> codes,
                   std::span<float> scales);
void DecodeBlocks8(Code8 code, std::span<const uint8_t> codes, std::span<const float> scales,
                   std::span<float> out);

// Rank-1 normalization of a non-negative matrix: the scale of element (i, j) is
// min(row_max[i], col_max[j]) (Anil et al., SM3, arXiv 1901.11150). The span is elements first ..
// first + n - 1 in row-major order of a matrix with col_max.size() columns.
void RaiseRank1(std::span<const float> x, int64_t first, std::span<float> row_max,
                std::span<float> col_max);
void Rank1Scales(int64_t first, std::span<const float> row_max, std::span<const float> col_max,
                 std::span<float> scales);
// scales[i] <- x[i] / scales[i], 0 where the scale is below the smallest normal number.
void DivideByScales(std::span<const float> x, std::span<float> scales);

// bf16 with the low 16 bits rounded up with the probability they stand for; element i of the span
// draws number first + i of stream `key`. NaN stays NaN; Inf stays Inf.
void RoundToBf16(std::span<const float> x, uint64_t key, uint64_t first, std::span<uint16_t> out);
void WidenBf16(std::span<const uint16_t> x, std::span<float> out);

}  // namespace tw::kernels
