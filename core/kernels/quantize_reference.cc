// The scalar side of quantize.h: what the vector code must agree with, bit for bit, and what it
// calls for one-bit codes, odd ends and scales at the edges of fp32.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/kernels/device_kernels.h"
#include "core/kernels/quantize_element.h"
#include "core/kernels/random.h"
#include "core/kernels/reduce.h"

namespace tw::kernels {
namespace {

constexpr int64_t kTile = 1280;  // a multiple of 8 codes and of 5 trits

}  // namespace

int64_t QuantizeSpec::CodeBytes(int64_t numel) const { return quantize::CodeBytes(*this, numel); }

int64_t QuantizeSpec::BodyBytes(int64_t numel) const {
  if (numel == 0) return 0;
  const int64_t per_block = block == 0 ? numel : block;
  const int64_t full = numel / per_block;
  const int64_t rest = numel % per_block;
  const int64_t scale_bytes = sizeof(float);
  return full * (scale_bytes + CodeBytes(per_block)) + (rest ? scale_bytes + CodeBytes(rest) : 0);
}

BlockScale MakeBlockScale(float scale, int levels) { return quantize::ScaleOfBlock(scale, levels); }

float SumScale(std::span<const float> x, ScaleRule rule) {
  if (x.empty()) return 0.0f;
  const double sum = rule == ScaleRule::kMeanAbs ? SumAbs(x) : SumOfSquares(x);
  return quantize::ScaleFromSum(sum, static_cast<int64_t>(x.size()), rule);
}

float CodeValue(uint8_t code, const QuantizeSpec& spec, const BlockScale& s) {
  return quantize::ValueOf(code, spec, s);
}

void QuantizeTileReference(float* message, int64_t numel, const QuantizeSpec& spec,
                           const BlockScale& s, QuantizeStream stream, uint8_t* codes) {
  for (int64_t i = 0; i < numel; ++i) {
    const float x = message[i];
    float noise = 0.0f;
    if (spec.stochastic) {
      noise =
          CentredUniform(ElementBits(stream.key, stream.first_index + static_cast<uint64_t>(i)));
    }
    codes[i] = quantize::CodeOf(x, noise, spec, s);
    message[i] = x - quantize::ValueOf(codes[i], spec, s);
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
  if (OnDevice()) return OkStatus();
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
