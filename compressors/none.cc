// none: the message as it is.
//
//   body = the elements in the parameter's own type; decode(body) == message bit for bit
//
// Body: numel * element bytes, little-endian. No state. The residual is zero; what rounding leaves
// when the message has another type than the parameter (fp32 error feedback around a
// half-precision one).

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/api/compressor.h"
#include "core/api/convert.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/elementwise.h"

namespace tw {
namespace {

Status WrongSize(ByteSpan body, int64_t expected) {
  return DataLoss("none: body of " + std::to_string(body.size()) + " bytes, expected " +
                  std::to_string(expected));
}

class None : public Compressor {
 public:
  static StatusOr<std::unique_ptr<Compressor>> Create(const NoConfig&) {
    return std::make_unique<None>();
  }

  const CompressorTraits& traits() const override {
    static const CompressorTraits traits = {.merges = {Merge::kSum, Merge::kGather},
                                            .unbiased = true,
                                            .exact_sum = true,
                                            .fixed_size = true,
                                            .lossless = true};
    return traits;
  }
  double Delta(const TensorSpec&) const override { return 1; }
  double Omega(const TensorSpec&) const override { return 0; }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override {
    return spec.numel() * DTypeBytes(spec.dtype);
  }

  StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView& message, const CodecContext&,
                                MutableByteSpan body) const override {
    const int64_t size = message.numel() * DTypeBytes(DType::kF32);
    TW_CHECK_GE(static_cast<int64_t>(body.size()), size);
    kernels::MoveOut(message.buffer, message.addend, message.scale, body.data());
    return size;
  }
  Status DecodeAdd(ByteSpan body, float scale, const CodecContext&,
                   std::span<float> out) const override {
    if (body.size() != out.size_bytes()) {
      return WrongSize(body, static_cast<int64_t>(out.size_bytes()));
    }
    kernels::AddFromBytes(out, scale, body.data());
    return OkStatus();
  }

  StatusOr<int64_t> EncodeAny(int round, ByteSpan reduced, Message& message,
                              const CodecContext& context, MutableByteSpan body) const override {
    if (message.buffer.dtype != context.spec->dtype) {
      message.Materialize();
      if (kernels::OnDevice()) {
        return EncodeRoundedOnDevice(message.buffer, context.spec->dtype, *context.scratch, body);
      }
      return EncodeRounded(message.buffer, context.spec->dtype, body);
    }
    if (message.buffer.dtype == DType::kF32) {
      return Compressor::EncodeAny(round, reduced, message, context, body);
    }
    message.Materialize();
    const int64_t size = message.buffer.bytes();
    TW_CHECK_GE(static_cast<int64_t>(body.size()), size);
    CopyBytes(body.data(), message.buffer.data, static_cast<size_t>(size));
    FillZero(message.buffer);
    return size;
  }
  Status DecodeAddAny(ByteSpan body, float scale, const CodecContext& context,
                      TensorView out) const override {
    const DType dtype = context.spec->dtype;
    if (dtype == DType::kF32 && out.dtype == DType::kF32) {
      return DecodeAdd(body, scale, context, out.f32());
    }
    const int64_t expected = out.numel * DTypeBytes(dtype);
    if (static_cast<int64_t>(body.size()) != expected) return WrongSize(body, expected);
    AddScaled(out, {const_cast<uint8_t*>(body.data()), dtype, out.numel}, scale);
    return OkStatus();
  }

 private:
  // Rounds `message` to `dtype` into the body and leaves what rounding lost. In small pieces, since
  // the body has no alignment.
  static StatusOr<int64_t> EncodeRounded(TensorView message, DType dtype, MutableByteSpan body) {
    const int64_t item = DTypeBytes(dtype), size = message.numel * item;
    TW_CHECK_GE(static_cast<int64_t>(body.size()), size);
    constexpr int64_t kPiece = 256;
    uint64_t storage[kPiece];
    for (int64_t at = 0; at < message.numel; at += kPiece) {
      const int64_t n = std::min(kPiece, message.numel - at);
      const TensorView exact{static_cast<uint8_t*>(message.data) + at * DTypeBytes(message.dtype),
                             message.dtype, n};
      const TensorView rounded{storage, dtype, n};
      FillZero(rounded);
      AddScaled(rounded, exact, 1.0f);
      AddScaled(exact, rounded, -1.0f);
      std::memcpy(body.data() + at * item, storage, static_cast<size_t>(n * item));
    }
    return size;
  }
  // The same of an fp32 message at once, through scratch.
  static StatusOr<int64_t> EncodeRoundedOnDevice(TensorView message, DType dtype,
                                                 Workspace& scratch, MutableByteSpan body) {
    const int64_t size = message.numel * DTypeBytes(dtype);
    TW_CHECK_GE(static_cast<int64_t>(body.size()), size);
    const size_t n = static_cast<size_t>(message.numel);
    const auto wide = scratch.Get<float>(kScratchCodec0, n);
    const TensorView rounded{scratch.Get<uint8_t>(kScratchCodec1, static_cast<size_t>(size)).data(),
                             dtype, message.numel};
    ZeroBytes(wide.data(), wide.size_bytes());
    kernels::AddInPlace(wide, 1.0f, message.f32());  // -0 becomes 0, as on the host
    ConvertFromFp32(wide, rounded);
    AddScaled(message, rounded, -1.0f);
    CopyBytes(body.data(), rounded.data, static_cast<size_t>(size));
    return size;
  }
};

TW_REGISTER(Compressor, none, /*wire_id=*/1, NoConfig, None::Create,
            "the gradient as it is, in its own type");

}  // namespace
}  // namespace tw
