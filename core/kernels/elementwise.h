#pragma once
// Element-wise loops over flat spans: sums, scalings and casts, vectorised with run-time dispatch.
//
// Every output depends on its own inputs only and no multiply is fused with an add, so results are
// bit-identical for every vector width; core/kernels/elementwise_reference.h holds the same in
// plain C++. Spans may be empty, and their addresses any (16-bit values inside bodies sit at odd
// ones); two spans of one call have equal lengths and, unless said otherwise, do not overlap. bf16
// and fp16 values are passed as their 16 bits. Thread safe.

#include <cstdint>
#include <span>

namespace tw::kernels {

// a[i] += s * b[i]
void AddInPlace(std::span<float> a, float s, std::span<const float> b);
// a[i] *= s
void Scale(std::span<float> a, float s);
// a[i] += s * value of b[i]
void AddFromBf16(std::span<float> a, float s, std::span<const uint16_t> b);
void AddFromHalf(std::span<float> a, float s, std::span<const uint16_t> b);

// a[i] += b[i], wrapping around
void AddBytes(std::span<uint8_t> a, std::span<const uint8_t> b);
// a[i] = the larger of a[i] and b[i]; a[i] where one is NaN
void TakeLarger(std::span<float> a, std::span<const float> b);
// a[i] = 0 where b[i] != 0
void ZeroWhere(std::span<float> a, std::span<const float> b);

// a[i] += s * value of the four bytes at b + 4 i
void AddFromBytes(std::span<float> a, float s, const uint8_t* b);
// to[i] (four bytes at to + 4 i) = buffer[i] + s * addend[i] (addend may be null); buffer[i] = 0
void MoveOut(std::span<float> buffer, const float* addend, float s, uint8_t* to);

// Round to nearest, ties to even. bf16 keeps infinities and NaN (made quiet); a finite value beyond
// the largest bf16 becomes infinite.
void ConvertToBf16(std::span<const float> from, std::span<uint16_t> to);
void ConvertFromBf16(std::span<const uint16_t> from, std::span<float> to);
// What would round beyond 65504 becomes +-65504, infinities too; NaN stays NaN.
void ConvertToHalf(std::span<const float> from, std::span<uint16_t> to);
void ConvertFromHalf(std::span<const uint16_t> from, std::span<float> to);

// The cast codecs' fused pass, with m = buffer[i] + s * addend[i] (addend may be null: m =
// buffer[i])
//   to[i] = cast(m * pre);   buffer[i] = m - post * value of to[i]
// Casts saturate to the largest finite value of the 16-bit type.
void CastResidualBf16(std::span<float> buffer, const float* addend, float s, float pre, float post,
                      std::span<uint16_t> to);
void CastResidualHalf(std::span<float> buffer, const float* addend, float s, float pre, float post,
                      std::span<uint16_t> to);

}  // namespace tw::kernels
