#pragma once
// What blockquant, qsgd and terngrad share: a body is the quantizer kernel's, of a fixed size; they
// differ in the spec that they hand to it and in what they promise.

#include "core/api/compressor.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/quantize.h"

namespace tw {

class QuantizedCodec : public Compressor {
 public:
  const CompressorTraits& traits() const override { return traits_; }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int /*round*/) const override {
    return quant_.BodyBytes(spec.numel());
  }

  StatusOr<int64_t> EncodeRound(int /*round*/, ByteSpan /*reduced*/, const MessageView& message,
                                const CodecContext& context, MutableByteSpan body) const override {
    const int64_t bytes = quant_.BodyBytes(message.numel());
    TW_CHECK_LE(bytes, static_cast<int64_t>(body.size()));
    kernels::Quantize(message, quant_,
                      {context.OwnStream().key, static_cast<uint64_t>(context.offset)},
                      body.data());
    return bytes;
  }
  Status DecodeAdd(ByteSpan body, float scale, const CodecContext& /*context*/,
                   std::span<float> out) const override {
    if (!kernels::OnDevice()) {
      TW_RETURN_IF_ERROR(kernels::CheckQuantized(body, static_cast<int64_t>(out.size()), quant_));
    }
    kernels::DequantizeAdd(body.data(), quant_, scale, out);
    return OkStatus();
  }

 protected:
  // Filled in by the constructor of the codec, constant afterwards.
  kernels::QuantizeSpec quant_;
  CompressorTraits traits_;
};

}  // namespace tw
