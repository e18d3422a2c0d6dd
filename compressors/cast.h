#pragma once
// What fp16 and bf16 share: a codec that rounds every element to a 16-bit type.

#include <limits>
#include <memory>
#include <string>

#include "core/api/compressor.h"
#include "core/kernels/elementwise.h"

namespace tw {

// Format: kName, kDType, kDelta; CastResidual(buffer, addend, s, pre, post, to);
// Add(out, factor, from).
template <class Format>
class Cast : public Compressor {
 public:
  static StatusOr<std::unique_ptr<Compressor>> Create(const NoConfig&) {
    return std::make_unique<Cast>();
  }

  const CompressorTraits& traits() const override {
    static const CompressorTraits traits = {
        .merges = {Merge::kSum, Merge::kGather}, .fixed_size = true, .sum_dtype = Format::kDType};
    return traits;
  }
  double Delta(const TensorSpec&) const override { return Format::kDelta; }
  double Omega(const TensorSpec&) const override { return std::numeric_limits<double>::infinity(); }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override { return 2 * spec.numel(); }

  StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView& message,
                                const CodecContext& context, MutableByteSpan body) const override {
    TW_CHECK_GE(static_cast<int64_t>(body.size()), 2 * message.numel());
    const float n = static_cast<float>(context.world_size);
    Format::CastResidual(
        message.buffer, message.addend, message.scale, 1.0f / n, n,
        {reinterpret_cast<uint16_t*>(body.data()), static_cast<size_t>(message.numel())});
    return 2 * message.numel();
  }
  Status DecodeAdd(ByteSpan body, float scale, const CodecContext& context,
                   std::span<float> out) const override {
    if (body.size() != 2 * out.size()) {
      return DataLoss(std::string(Format::kName) + ": body of " + std::to_string(body.size()) +
                      " bytes, expected " + std::to_string(2 * out.size()));
    }
    Format::Add(out, scale * static_cast<float>(context.world_size),
                {reinterpret_cast<const uint16_t*>(body.data()), out.size()});
    return OkStatus();
  }
};

}  // namespace tw
