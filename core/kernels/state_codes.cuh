#pragma once
// Codes of optimizer states in a warp: a block of 128 (4 bits) or 256 (8 bits) elements, of which a
// lane has kEach = 4 or 8 in a row. Tables lie in lanes, so that a look-up is a shuffle: all lanes
// of the warp must call these functions together.
//
// The numbers and codes are those of state_codes_simd.h. Of blocks whose scale is not finite the
// codes may differ; what they stand for does not: nothing that is finite.

#include <array>

#include "core/kernels/state_codes.h"
#include "core/kernels/state_codes_tables.h"
#include "core/kernels/vectors.cuh"

namespace tw::kernels::device {

static __constant__ std::array<float, 16> kBooks4[4] = {kDeSigned4, kDeUnsigned4, kDeNoZero4,
                                                        kLinear4};
static __constant__ std::array<float, 15> kMidpoints4[4] = {
    MidpointsOf(Code4::kDeSigned), MidpointsOf(Code4::kDeUnsigned), MidpointsOf(Code4::kDeNoZero),
    MidpointsOf(Code4::kLinear)};
static __constant__ std::array<float, 8> kBorders4 = kDeSignedBorders;
static __constant__ Decades kDecades8[2] = {kDecadesSigned, kDecadesUnsigned};

__device__ inline int LaneInWarp() { return static_cast<int>(threadIdx.x % kWarp); }

// work(block) for the blocks of a tile that this warp has.
template <int64_t kBlock, class Segment, class Work>
__device__ inline void ForBlocks(const Segment& segment, Work work) {
  const int64_t first = (blockIdx.x - segment.first_tile) * (kTile / kBlock);
  for (int64_t b = threadIdx.x / kWarp; b < kTile / kBlock; b += kWarps) {
    if ((first + b) * kBlock < segment.numel) work(first + b);
  }
}

template <Code4 kCode>
struct Coder4 {
  static constexpr int kEach = kStateBlock4 / kWarp;

  // For reading a block with this scale.
  __device__ explicit Coder4(float scale)
      : mine_(kBooks4[static_cast<int>(kCode)][static_cast<size_t>(LaneInWarp() % 16)] * scale),
        part_(scale * (1.0f / 16)) {}
  __device__ float Number(unsigned code) const {
    if constexpr (kCode == Code4::kLinear) return (static_cast<float>(code) + 1.0f) * part_;
    return __shfl_sync(kWholeWarp, mine_, static_cast<int>(code));
  }

  __device__ static unsigned Code(float x) {
    if constexpr (kCode == Code4::kDeSigned) {
      // Symmetric but for +1; a tie goes to the lower code (state_codes_simd.h).
      const unsigned bits = __float_as_uint(x), negative = bits >> 31;
      const unsigned compared = (bits & 0x7FFFFFFFu) + negative;
      int count = 0;
      for (int i = 0; i < 8; ++i) {
        count += compared > __float_as_uint(kBorders4[static_cast<size_t>(i)]);
      }
      const int code = negative ? 7 - count : 7 + count;
      return static_cast<unsigned>(code < 0 ? 0 : code);
    } else if constexpr (kCode == Code4::kLinear) {
      const float code = fmaxf(ceilf(x * 16.0f - 1.5f), 0.0f);
      return static_cast<unsigned>(fminf(code, 15.0f));
    } else {
      unsigned count = 0;
      for (int i = 0; i < 15; ++i) {
        count += x > kMidpoints4[static_cast<int>(kCode)][static_cast<size_t>(i)];
      }
      return count;
    }
  }

  // The codes of a lane: elements [at, at + kEach) of a tensor that ends at `numel`; codes beyond
  // are 0.
  __device__ static void Load(const uint8_t* codes, int64_t at, int64_t numel,
                              unsigned (&out)[kEach]) {
    unsigned word = 0;
    if (at + kEach <= numel) {
      word = LoadAny<uint16_t>(codes + at / 2);
    } else {
      for (int i = 0; at + 2 * i < numel && i < kEach / 2; ++i) {
        word |= unsigned{codes[at / 2 + i]} << (8 * i);
      }
    }
    for (int i = 0; i < kEach; ++i) out[i] = word >> (4 * i) & 15u;
  }
  __device__ static void Store(uint8_t* codes, int64_t at, int64_t numel,
                               const unsigned (&code)[kEach]) {
    unsigned word = 0;
    for (int i = 0; i < kEach; ++i) {
      if (at + i < numel) word |= code[i] << (4 * i);
    }
    if (at + kEach <= numel) {
      StoreAny(codes + at / 2, static_cast<uint16_t>(word));
    } else {
      for (int i = 0; at + 2 * i < numel && i < kEach / 2; ++i) {
        codes[at / 2 + i] = static_cast<uint8_t>(word >> (8 * i));
      }
    }
  }

 private:
  float mine_, part_;
};

template <Code8 kCode>
struct Coder8 {
  static constexpr int kEach = kStateBlock8 / kWarp;
  static constexpr bool kSigned = kCode == Code8::kDeSigned;

  __device__ explicit Coder8(float scale)
      : step_(Table().step[static_cast<size_t>(LaneInWarp() % 8)] * scale),
        base_(Table().base[static_cast<size_t>(LaneInWarp() % 8)] * scale) {}
  __device__ float Number(unsigned code) const {
    const int centred = kSigned ? static_cast<int>(code) - 127 : static_cast<int>(code);
    const float rank = static_cast<float>(centred < 0 ? -centred : centred);
    const float counted = kSigned ? fmaxf(rank, 1.0f) : rank + 1.0f;
    const int row = static_cast<int>(__float_as_uint(counted) >> 23 & 7u);
    const float magnitude =
        rank * __shfl_sync(kWholeWarp, step_, row) + __shfl_sync(kWholeWarp, base_, row);
    return centred < 0 ? -magnitude : magnitude;
  }

  __device__ static unsigned Code(float x) {
    const int bits = static_cast<int>(__float_as_uint(x));
    const float a = kSigned ? fabsf(x) : x;
    const int compared = kSigned ? bits & 0x7FFFFFFF : bits;
    int run = 0;
    for (int i = 0; i < 8; ++i) {
      run += compared > static_cast<int>(__float_as_uint(Table().border[static_cast<size_t>(i)]));
    }
    const float slope =
        __shfl_sync(kWholeWarp, Table().slope[static_cast<size_t>(LaneInWarp() % 8)], run & 7);
    float y = fminf(a * slope + kDecadeStart, kDecadeMost);
    if (!kSigned) y = fmaxf(y, 1.0f);
    const unsigned fixed = (__float_as_uint(y) - kDecadeBits) << run;
    if (!kSigned) return (fixed >> 23) - 1;
    const int rank = static_cast<int>(fixed >> 24);
    return static_cast<unsigned>(127 + (bits < 0 ? (rank > 127 ? -127 : -rank) : rank));
  }

  __device__ static void Load(const uint8_t* codes, int64_t at, int64_t numel,
                              unsigned (&out)[kEach]) {
    if (at + kEach <= numel) {
      const uint64_t word = LoadAny<uint64_t>(codes + at);
      for (int i = 0; i < kEach; ++i) out[i] = static_cast<unsigned>(word >> (8 * i)) & 255u;
    } else {
      for (int i = 0; i < kEach; ++i) out[i] = at + i < numel ? codes[at + i] : 0;
    }
  }
  __device__ static void Store(uint8_t* codes, int64_t at, int64_t numel,
                               const unsigned (&code)[kEach]) {
    if (at + kEach <= numel) {
      uint64_t word = 0;
      for (int i = 0; i < kEach; ++i) word |= uint64_t{code[i] & 255u} << (8 * i);
      StoreAny(codes + at, word);
    } else {
      for (int i = 0; i < kEach; ++i) {
        if (at + i < numel) codes[at + i] = static_cast<uint8_t>(code[i]);
      }
    }
  }

 private:
  __device__ static const Decades& Table() { return kDecades8[kSigned ? 0 : 1]; }
  float step_, base_;
};

// A moment of a block: a lane's numbers, 0 beyond the end.
template <class Coder>
__device__ inline void DecodeLane(const uint8_t* codes, float scale, int64_t at, int64_t numel,
                                  float (&out)[Coder::kEach]) {
  const Coder coder(scale);
  unsigned code[Coder::kEach];
  Coder::Load(codes, at, numel, code);
  for (int i = 0; i < Coder::kEach; ++i) {
    const float number = coder.Number(code[i]);
    out[i] = at + i < numel ? number : 0.0f;
  }
}

// Of a lane's numbers the largest magnitude's bits, so that Inf and above it NaN win.
template <int kEach>
__device__ inline unsigned LargestBits(const float (&x)[kEach]) {
  unsigned most = 0;
  for (int i = 0; i < kEach; ++i) {
    const unsigned bits = __float_as_uint(x[i]) & 0x7FFFFFFFu;
    most = most < bits ? bits : most;
  }
  return most;
}
// Of a block whose largest magnitude has these bits.
struct BlockScales {
  float scale, inverse;
};
__device__ inline BlockScales ScalesOf(unsigned most) {
  const float scale = __uint_as_float(most < 0x00800000u ? 0u : most);
  return {scale, scale == 0 ? 0.0f : 1.0f / scale};
}

// Encodes a block again; returns its scale.
template <class Coder>
__device__ inline float EncodeLane(const float (&x)[Coder::kEach], int64_t at, int64_t numel,
                                   uint8_t* codes) {
  const BlockScales of = ScalesOf(MaxAcrossWarp(LargestBits(x)));
  unsigned code[Coder::kEach];
  for (int i = 0; i < Coder::kEach; ++i) code[i] = Coder::Code(x[i] * of.inverse);
  Coder::Store(codes, at, numel, code);
  return of.scale;
}

}  // namespace tw::kernels::device
