#pragma once
// Groups of codes: the general way, an element after the other from memory, and the one by which
// most blocks go, eight elements in registers that are read once and written once.

#include "core/kernels/quantize_device.h"
#include "core/kernels/quantize_element.h"
#include "core/kernels/random.h"
#include "core/kernels/sums.cuh"
#include "core/kernels/vectors.cuh"

namespace tw::kernels::device {

// A block of a segment; elements and bytes counted from the segment's start.
struct Block {
  int64_t begin = 0;  // of its elements
  int64_t numel = 0;  // not positive: there is none
  int64_t body = 0;   // of its scale, codes 4 bytes further
};
__device__ inline Block BlockAt(const QuantizeSpec& spec, int64_t numel, int64_t index) {
  const int64_t full = BlockElements(spec, numel);
  Block block;
  block.begin = index * full;
  block.numel = numel - block.begin < full ? numel - block.begin : full;
  block.body = index * (int64_t{sizeof(float)} + quantize::CodeBytes(spec, full));
  return block;
}

// Codes that fill whole bytes together: eight of any width, or five trits in one byte.
__device__ inline int GroupOf(const QuantizeSpec& spec) {
  return spec.packing == Packing::kTrits ? 5 : 8;
}

// Bodies of blocks are four bytes longer than their codes: eight may lie at any multiple of four.
__device__ inline void StoreWord(uint8_t* to, uint64_t word, int bytes) {
  if (bytes == 4) return StoreAny(to, static_cast<uint32_t>(word));
  if (bytes == 8) {
    StoreAny(to, static_cast<uint32_t>(word));
    return StoreAny(to + 4, static_cast<uint32_t>(word >> 32));
  }
  if (bytes == 2) return StoreAny(to, static_cast<uint16_t>(word));
  for (int i = 0; i < bytes; ++i) to[i] = static_cast<uint8_t>(word >> (8 * i));
}
__device__ inline uint64_t LoadWord(const uint8_t* from, int bytes) {
  if (bytes == 4) return LoadAny<uint32_t>(from);
  if (bytes == 8) return LoadAny<uint32_t>(from) | uint64_t{LoadAny<uint32_t>(from + 4)} << 32;
  if (bytes == 2) return LoadAny<uint16_t>(from);
  uint64_t word = 0;
  for (int i = 0; i < bytes; ++i) word |= uint64_t{from[i]} << (8 * i);
  return word;
}

// The general way, for trits and for scales at the edge of fp32: what is in memory has its addition
// done; groups of codes from `begin` on, every `threads`th.
__device__ inline void EncodeGroups(const QuantizeSegment& segment, const QuantizeSpec& spec,
                                    const Block& block, const BlockScale& s, int64_t begin,
                                    int64_t end, int thread, int threads) {
  const int group = GroupOf(spec);
  const bool trits = spec.packing == Packing::kTrits;
  float* x = segment.buffer + block.begin;
  uint8_t* codes = segment.body + block.body + sizeof(float);
  const uint64_t index = segment.stream.first_index + static_cast<uint64_t>(block.begin);
  for (int64_t at = begin + int64_t{thread} * group; at < end; at += int64_t{threads} * group) {
    const int count = static_cast<int>(end - at < group ? end - at : group);
    uint64_t word = 0;
    int place = 1;  // 3^j
    for (int j = 0; j < count; ++j) {
      const float value = x[at + j];
      float noise = 0.0f;
      if (spec.stochastic) {
        noise =
            CentredUniform(ElementBits(segment.stream.key, index + static_cast<uint64_t>(at + j)));
      }
      const uint8_t code = quantize::CodeOf(value, noise, spec, s);
      x[at + j] = value - quantize::ValueOf(code, spec, s);
      if (trits) {
        word += static_cast<uint64_t>((code - 1) * place);
        place *= 3;
      } else {
        word |= uint64_t{code} << (j * spec.bits);
      }
    }
    StoreWord(codes + quantize::CodeBytes(spec, at), word,
              static_cast<int>(quantize::CodeBytes(spec, count)));
  }
}

__device__ inline void DecodeGroups(const DequantizeSegment& segment, const QuantizeSpec& spec,
                                    const Block& block, int64_t begin, int64_t end, int thread,
                                    int threads) {
  const int group = GroupOf(spec);
  const bool trits = spec.packing == Packing::kTrits;
  float* out = segment.out + block.begin;
  const uint8_t* body = segment.body + block.body;
  const BlockScale s = quantize::ScaleOfBlock(LoadAny<float>(body), spec.levels);
  const uint8_t* codes = body + sizeof(float);
  const unsigned mask = (1u << spec.bits) - 1;
  for (int64_t at = begin + int64_t{thread} * group; at < end; at += int64_t{threads} * group) {
    const int count = static_cast<int>(end - at < group ? end - at : group);
    uint64_t word = LoadWord(codes + quantize::CodeBytes(spec, at),
                             static_cast<int>(quantize::CodeBytes(spec, count)));
    auto trits_left = static_cast<unsigned>(word);
    for (int j = 0; j < count; ++j) {
      unsigned code;
      if (trits) {
        code = trits_left % 3 + 1;
        trits_left /= 3;
      } else {
        code = static_cast<unsigned>(word) & mask;
        word >>= spec.bits;
      }
      out[at + j] += segment.scale * quantize::ValueOf(static_cast<uint8_t>(code), spec, s);
    }
  }
}

// ---- in registers ----

constexpr int kGroup = 8;

// What a thread has of a stretch of `numel` elements: its groups thread, thread + threads, ...
struct Share {
  int thread, threads, numel;
  __device__ int At(int group) const { return (group * threads + thread) * kGroup; }
};

// Groups [first, first + kCount) of those of a thread.
template <int kCount>
__device__ inline void LoadGroups(const float* from, const Share& share, int first,
                                  float (*out)[kGroup]) {
  if (IsAligned(from) && share.numel % kGroup == 0) {
    TW_UNROLL for (int g = 0; g < kCount; ++g) {
      const int at = share.At(first + g);
      for (int i = 0; i < kGroup; ++i) out[g][i] = 0.0f;
      if (at < share.numel) LoadFours(from + at, out[g]);
    }
    return;
  }
  TW_UNROLL for (int g = 0; g < kCount; ++g) {
    const int at = share.At(first + g);
    for (int i = 0; i < kGroup; ++i) out[g][i] = at + i < share.numel ? from[at + i] : 0.0f;
  }
}
template <int kGroups>
__device__ inline void StoreGroups(float* to, const Share& share,
                                   const float (&x)[kGroups][kGroup]) {
  const bool fours = IsAligned(to) && share.numel % kGroup == 0;
  TW_UNROLL for (int g = 0; g < kGroups; ++g) {
    const int at = share.At(g);
    if (at >= share.numel) continue;
    if (fours) {
      StoreFours(to + at, x[g]);
    } else {
      for (int i = 0; i < kGroup; ++i) {
        if (at + i < share.numel) to[at + i] = x[g][i];
      }
    }
  }
}
// The message with its addition done.
template <int kGroups>
__device__ inline void LoadMessage(const MessageSpan& message, const Share& share,
                                   float (&x)[kGroups][kGroup]) {
  constexpr int kTogether = kGroups < 4 ? kGroups : 4;
  TW_UNROLL for (int first = 0; first < kGroups; first += kTogether) {
    LoadGroups<kTogether>(message.buffer, share, first, x + first);
    if (!message.addend) continue;
    float addend[kTogether][kGroup];
    LoadGroups<kTogether>(message.addend, share, first, addend);
    for (int g = 0; g < kTogether; ++g) {
      for (int i = 0; i < kGroup; ++i) x[first + g][i] += message.scale * addend[g][i];
    }
  }
}

template <int kGroups>
__device__ inline float LargestOf(const float (&x)[kGroups][kGroup]) {
  float most = 0.0f;
  TW_UNROLL for (int g = 0; g < kGroups; ++g) {
    for (int i = 0; i < kGroup; ++i) most = fmaxf(most, fabsf(x[g][i]));
  }
  return most;
}

// Term of the sum that `rule` is made of.
__device__ inline double TermOf(float x, ScaleRule rule) {
  const double wide = x;
  return rule == ScaleRule::kL2Norm ? wide * wide : fabs(wide);
}
// Their sum over what a whole warp shares, as SumOfPiece has it. `row` is shared memory of the
// warp.
template <int kGroups>
__device__ inline double SumOfWarp(const float (&x)[kGroups][kGroup], ScaleRule rule,
                                   float (&row)[kWarp * kGroup]) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  double sum = 0;
  TW_UNROLL for (int g = 0; g < kGroups; ++g) {
    for (int i = 0; i < kGroup; ++i) row[lane * kGroup + i] = x[g][i];
    __syncwarp();
    if (lane < kPieceLanes) {
      for (int i = lane; i < kWarp * kGroup; i += kPieceLanes) sum += TermOf(row[i], rule);
    }
    __syncwarp();
  }
  return SumOfLanes(sum);
}

// What a launch is compiled for. kBits 4 and 8; 0: what the spec says.
template <int kBits_, bool kStochastic_>
struct Coder {
  static constexpr int kBits = kBits_;
  static constexpr bool kStochastic = kStochastic_;
  __device__ static int Bits(const QuantizeSpec& spec) { return kBits ? kBits : spec.bits; }
};

// Adding it rounds to an integer, which is then in the low bits (quantize_element.h).
inline constexpr float kMagic = 12582912.0f;
inline constexpr uint32_t kMagicBits = 0x4B400000u;

// What CodeOf and ValueOf do, for ordinary scales and 0.
template <class Coder>
__device__ inline uint64_t EncodeGroup(const QuantizeSpec& spec, const BlockScale& s,
                                       const float (&noise)[kGroup], float (&x)[kGroup]) {
  const int bits = Coder::Bits(spec);
  uint64_t word = 0;
  if (Coder::kBits == 0 && bits == 1) {
    for (int i = 0; i < kGroup; ++i) {
      const bool plus = x[i] >= 0.0f;
      word |= uint64_t{plus} << i;
      x[i] -= plus ? s.scale : -s.scale;
    }
    return word;
  }
  const auto levels = static_cast<float>(spec.levels);
  const uint32_t zero = kMagicBits - (1u << (bits - 1));
  uint32_t halves[2] = {};
  for (int i = 0; i < kGroup; ++i) {
    float place = x[i] * s.inverse;
    if (Coder::kStochastic) place = fminf(fmaxf(place + noise[i], -levels), levels);
    const float shifted = place + kMagic;
    const uint32_t code = __float_as_uint(shifted) - zero;
    if constexpr (Coder::kBits == 0) {
      word |= uint64_t{code} << (i * bits);
    } else {
      halves[i * Coder::kBits / 32] |= code << (i * Coder::kBits % 32);
    }
    x[i] -= (shifted - kMagic) * s.step;
  }
  return Coder::kBits == 0 ? word : halves[0] | uint64_t{halves[1]} << 32;
}

__device__ inline void DrawNoise(const QuantizeStream& stream, uint64_t index,
                                 float (&noise)[kGroup]) {
  const auto low = static_cast<uint32_t>(index);
  if (low <= ~0u - kGroup) {
    const ElementKey key = ElementKey::Of(stream.key, index);
    for (uint32_t i = 0; i < kGroup; ++i) noise[i] = CentredUniform(ElementBits(key, low + i));
  } else {
    for (uint32_t i = 0; i < kGroup; ++i) {
      noise[i] = CentredUniform(ElementBits(stream.key, index + i));
    }
  }
}

__device__ inline uint64_t LowBits(uint64_t word, int bits) {
  return bits >= 64 ? word : word & ((uint64_t{1} << bits) - 1);
}

// Codes and residual of a share of a block that begins `begin` elements into it, a multiple of 8.
template <class Coder, int kGroups>
__device__ inline void EncodeShare(const QuantizeSegment& segment, const QuantizeSpec& spec,
                                   const Block& block, int64_t begin, const BlockScale& s,
                                   const Share& share, float (&x)[kGroups][kGroup]) {
  float* buffer = segment.buffer + block.begin + begin;
  const int bits = Coder::Bits(spec);
  const bool ordinary = Coder::kBits == 0 && bits == 1 ? !Coder::kStochastic && s.scale != 0
                                                       : !s.edge || s.scale == 0;
  if (!ordinary) {
    StoreGroups(buffer, share, x);
    return EncodeGroups(segment, spec, block, s, begin, begin + share.numel, share.thread,
                        share.threads);
  }
  uint8_t* codes = segment.body + block.body + sizeof(float) + begin / kGroup * bits;
  const uint64_t index = segment.stream.first_index + static_cast<uint64_t>(block.begin + begin);
  TW_UNROLL for (int g = 0; g < kGroups; ++g) {
    const int at = share.At(g), left = share.numel - at;
    if (left <= 0) continue;
    float noise[kGroup];
    if (Coder::kStochastic) DrawNoise(segment.stream, index + static_cast<uint64_t>(at), noise);
    const uint64_t word = EncodeGroup<Coder>(spec, s, noise, x[g]);
    uint8_t* to = codes + at / kGroup * bits;
    if (left >= kGroup) {
      StoreWord(to, word, bits);
    } else {
      StoreWord(to, LowBits(word, left * bits), (left * bits + 7) / 8);
    }
  }
  StoreGroups(buffer, share, x);
}

// out += scale * value for such a share; any number of groups a thread.
template <class Coder>
__device__ inline void DecodeShare(const DequantizeSegment& segment, const QuantizeSpec& spec,
                                   const Block& block, int64_t begin, const Share& share) {
  const uint8_t* body = segment.body + block.body;
  const BlockScale s = quantize::ScaleOfBlock(LoadAny<float>(body), spec.levels);
  const int bits = Coder::Bits(spec);
  const bool one = Coder::kBits == 0 && bits == 1;
  if (one ? s.scale == 0 : s.edge) {
    return DecodeGroups(segment, spec, block, begin, begin + share.numel, share.thread,
                        share.threads);
  }
  float* out = segment.out + block.begin + begin;
  const uint8_t* codes = body + sizeof(float) + begin / kGroup * bits;
  const uint32_t zero = kMagicBits - (1u << (bits - 1)), mask = (1u << bits) - 1;
  const bool aligned = IsAligned(out);
  for (int g = 0; share.At(g) < share.numel; ++g) {
    const int at = share.At(g), left = share.numel - at;
    const bool fours = aligned && left >= kGroup;
    float x[kGroup];
    if (fours) {
      LoadFours(out + at, x);
    } else {
      for (int i = 0; i < kGroup; ++i) x[i] = i < left ? out[at + i] : 0.0f;
    }
    const uint64_t word =
        LoadWord(codes + at / kGroup * bits, left >= kGroup ? bits : (left * bits + 7) / 8);
    for (int i = 0; i < kGroup; ++i) {
      const uint32_t code = static_cast<uint32_t>(word >> (i * bits)) & mask;
      const float value =
          one ? (code ? s.scale : -s.scale) : (__uint_as_float(zero + code) - kMagic) * s.step;
      x[i] += segment.scale * value;
    }
    if (fours) {
      StoreFours(out + at, x);
    } else {
      for (int i = 0; i < kGroup; ++i) {
        if (i < left) out[at + i] = x[i];
      }
    }
  }
}

}  // namespace tw::kernels::device
