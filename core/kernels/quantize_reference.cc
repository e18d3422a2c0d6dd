// The scalar side of quantize.h: what the vector code must agree with, bit for bit, and what it
// calls for one-bit codes, odd ends and scales at the edges of fp32.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/kernels/quantize.h"
#include "core/kernels/random.h"
#include "core/kernels/reduce.h"

namespace tw::kernels {
namespace {

constexpr float kSmallestFastScale = 0x1p-100f;
constexpr float kLargestFastScale = 0x1p120f;
constexpr int64_t kTile = 1280;  // a multiple of 8 codes and of 5 trits

float Clamp(float x, float limit) { return std::min(std::max(x, -limit), limit); }

// Rounds to nearest, ties to even, for |x| < 2^22: the bits that fall off 1.5 * 2^23.
float RoundEven(float x) {
  constexpr float kMagic = 12582912.0f;
  const float shifted = x + kMagic;
  return shifted - kMagic;
}

float ToFloat(double x) {
  constexpr double kMax = std::numeric_limits<float>::max();
  return static_cast<float>(std::min(std::max(x, -kMax), kMax));
}

float OneBitCode(float x, const QuantizeSpec& spec, const BlockScale& s, float noise) {
  if (!spec.stochastic) return x >= 0.0f ? 1.0f : 0.0f;
  const double place = static_cast<double>(x) / s.scale * 0.5 + 0.5 + noise;
  return place > 0.5 ? 1.0f : 0.0f;
}

}  // namespace

int64_t QuantizeSpec::CodeBytes(int64_t numel) const {
  return packing == Packing::kTrits ? (numel + 4) / 5 : (numel * bits + 7) / 8;
}

int64_t QuantizeSpec::BodyBytes(int64_t numel) const {
  if (numel == 0) return 0;
  const int64_t per_block = block == 0 ? numel : block;
  const int64_t full = numel / per_block;
  const int64_t rest = numel % per_block;
  const int64_t scale_bytes = sizeof(float);
  return full * (scale_bytes + CodeBytes(per_block)) + (rest ? scale_bytes + CodeBytes(rest) : 0);
}

BlockScale MakeBlockScale(float scale, int levels) {
  BlockScale s;
  s.scale = scale;
  s.edge = !(scale >= kSmallestFastScale && scale <= kLargestFastScale);
  if (!s.edge) {
    s.inverse = static_cast<float>(levels) / scale;
    s.step = scale / static_cast<float>(levels);
  }
  return s;
}

float SumScale(std::span<const float> x, ScaleRule rule) {
  if (rule == ScaleRule::kMeanAbs) {
    return ToFloat(MeanAbs(x));
  }
  const double norm = std::sqrt(SumOfSquares(x));
  // Never below any |x|, or its level would exceed the last one.
  const float rounded = ToFloat(norm);
  constexpr float kMax = std::numeric_limits<float>::max();
  return double{rounded} < norm && rounded < kMax ? std::nextafter(rounded, kMax) : rounded;
}

float CodeValue(uint8_t code, const QuantizeSpec& spec, const BlockScale& s) {
  if (s.scale == 0.0f) return 0.0f;
  if (spec.bits == 1) return code ? s.scale : -s.scale;
  const int q = static_cast<int>(code) - (1 << (spec.bits - 1));
  if (!s.edge) return static_cast<float>(q) * s.step;
  return ToFloat(static_cast<double>(q) * s.scale / spec.levels);
}

void QuantizeTileReference(float* message, int64_t numel, const QuantizeSpec& spec,
                           const BlockScale& s, QuantizeStream stream, uint8_t* codes) {
  const float levels = static_cast<float>(spec.levels);
  const float half = static_cast<float>(1 << (spec.bits - 1));
  for (int64_t i = 0; i < numel; ++i) {
    const float x = message[i];
    float noise = 0.0f;
    if (spec.stochastic) {
      noise =
          CentredUniform(ElementBits(stream.key, stream.first_index + static_cast<uint64_t>(i)));
    }
    if (spec.bits == 1) {
      codes[i] = static_cast<uint8_t>(s.scale == 0.0f ? 0.0f : OneBitCode(x, spec, s, noise));
    } else if (s.scale == 0.0f) {
      codes[i] = static_cast<uint8_t>(half);
    } else {
      float place = s.edge ? ToFloat(double{x} * spec.levels / s.scale) : x * s.inverse;
      if (spec.stochastic || s.edge) place = Clamp(place + noise, levels);
      codes[i] = static_cast<uint8_t>(RoundEven(place) + half);
    }
    message[i] = x - CodeValue(codes[i], spec, s);
  }
}

void QuantizeReference(const MessageView& message, const QuantizeSpec& spec, QuantizeStream stream,
                       uint8_t* body) {
  const int64_t numel = message.numel();
  const int64_t block = spec.block == 0 ? numel : spec.block;
  for (int64_t at = 0; at < numel; at += block) {
    const int64_t n = std::min(block, numel - at);
    float* x = message.buffer.data() + at;
    float scale = 0.0f;
    for (int64_t i = 0; i < n; ++i) {
      if (message.addend) x[i] = x[i] + message.scale * message.addend[at + i];
      scale = std::max(scale, std::abs(x[i]));
    }
    if (spec.scale != ScaleRule::kMaxAbs) scale = SumScale({x, static_cast<size_t>(n)}, spec.scale);
    StoreLE(body, scale);
    body += sizeof(float);
    const BlockScale s = MakeBlockScale(scale, spec.levels);
    uint8_t codes[kTile];
    for (int64_t tile = 0; tile < n; tile += kTile) {
      const int64_t count = std::min(kTile, n - tile);
      const uint64_t index = stream.first_index + static_cast<uint64_t>(at + tile);
      QuantizeTileReference(x + tile, count, spec, s, {stream.key, index}, codes);
      if (spec.packing == Packing::kTrits) {
        for (int64_t i = 0; i < count; ++i) codes[i] -= 1;
        PackTrits(codes, count, body);
      } else {
        PackBits(codes, count, spec.bits, body);
      }
      body += spec.CodeBytes(count);
    }
  }
}

void DequantizeAddReference(const uint8_t* body, const QuantizeSpec& spec, float scale,
                            std::span<float> out) {
  const int64_t numel = static_cast<int64_t>(out.size());
  const int64_t block = spec.block == 0 ? numel : spec.block;
  for (int64_t at = 0; at < numel; at += block) {
    const int64_t n = std::min(block, numel - at);
    const BlockScale s = MakeBlockScale(LoadLE<float>(body), spec.levels);
    body += sizeof(float);
    uint8_t codes[kTile];
    for (int64_t tile = 0; tile < n; tile += kTile) {
      const int64_t count = std::min(kTile, n - tile);
      if (spec.packing == Packing::kTrits) {
        UnpackTrits(body, count, codes);
        for (int64_t i = 0; i < count; ++i) codes[i] += 1;
      } else {
        UnpackBits(body, count, spec.bits, codes);
      }
      for (int64_t i = 0; i < count; ++i) {
        out[at + tile + i] += scale * CodeValue(codes[i], spec, s);
      }
      body += spec.CodeBytes(count);
    }
  }
}

Status CheckQuantized(ByteSpan body, int64_t numel, const QuantizeSpec& spec) {
  if (static_cast<int64_t>(body.size()) != spec.BodyBytes(numel)) {
    return DataLoss("quantized body has " + std::to_string(body.size()) + " bytes, expected " +
                    std::to_string(spec.BodyBytes(numel)));
  }
  const int64_t block = spec.block == 0 ? numel : spec.block;
  const uint8_t* p = body.data();
  for (int64_t at = 0; at < numel; at += block) {
    const int64_t n = std::min(block, numel - at);
    const int64_t code_bytes = spec.CodeBytes(n);
    const float scale = LoadLE<float>(p);
    if (!(scale >= 0.0f && scale <= std::numeric_limits<float>::max())) {
      return DataLoss("quantized body: the scale of block " + std::to_string(at / block) +
                      " is not a finite number >= 0");
    }
    p += sizeof(float);
    bool clean = true;
    if (spec.packing == Packing::kTrits) {
      // 243..255 are no five trits, and trits past the end are 0.
      uint8_t most = 0;
      for (int64_t i = 0; i < code_bytes; ++i) most = std::max(most, p[i]);
      const int powers[] = {243, 3, 9, 27, 81};
      clean = most < 243 && p[code_bytes - 1] < powers[n % 5];
    } else if (const int used = static_cast<int>(n * spec.bits % 8); used != 0) {
      clean = p[code_bytes - 1] >> used == 0;
    }
    if (!clean) return DataLoss("quantized body: bits that no code uses are set");
    p += code_bytes;
  }
  return OkStatus();
}

}  // namespace tw::kernels
