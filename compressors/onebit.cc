// onebit: the sign of every element, with one mean for each sign (Seide et al., Interspeech 2014).
//
//   plus  = mean of the x_i >= 0 (0 if none);   minus = mean of the x_i < 0 (0 if none)
//   decode(body)_i = x_i < 0 ? minus : plus
//   the best two values for these classes: error at most scaled sign's, <= (1 - 1/d) ||x||^2
//
// Body, little-endian: fp32 plus | fp32 minus | ceil(d / 8) bytes, bit i % 8 of byte i / 8 set
// where x_i < 0, padding zero. No state. Left out: means per column.

#include <cmath>
#include <limits>

#include "core/api/compressor.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/signs.h"

namespace tw {
namespace {

constexpr auto kMeans = kernels::SignMeans::kEach;
constexpr size_t kBitsAt = 2 * sizeof(float);

class OneBit : public Compressor {
 public:
  static StatusOr<std::unique_ptr<Compressor>> Create(const NoConfig&) {
    return std::make_unique<OneBit>();
  }

  const CompressorTraits& traits() const override {
    static const CompressorTraits traits = {.merges = {Merge::kGather}, .fixed_size = true};
    return traits;
  }
  double Delta(const TensorSpec& spec) const override {
    return 1.0 / static_cast<double>(std::max<int64_t>(spec.numel(), 1));
  }
  double Omega(const TensorSpec&) const override { return std::numeric_limits<double>::infinity(); }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override {
    return static_cast<int64_t>(BodyBytes(static_cast<size_t>(spec.numel())));
  }

  StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView& message, const CodecContext&,
                                MutableByteSpan body) const override {
    const size_t d = message.buffer.size();
    if (d == 0) return 0;
    TW_CHECK_GE(body.size(), BodyBytes(d));
    kernels::EncodeSigns(message, kMeans, body.data(), body.data() + kBitsAt);
    return static_cast<int64_t>(BodyBytes(d));
  }

  Status DecodeAdd(ByteSpan body, float scale, const CodecContext&,
                   std::span<float> out) const override {
    if (body.size() != BodyBytes(out.size())) {
      return DataLoss("onebit: body of " + std::to_string(body.size()) + " bytes, expected " +
                      std::to_string(BodyBytes(out.size())));
    }
    if (out.empty()) return OkStatus();
    if (!kernels::OnDevice()) TW_RETURN_IF_ERROR(Check(body, out.size()));
    kernels::DecodeSignsAdd(out, scale, kMeans, body.data(), body.data() + kBitsAt);
    return OkStatus();
  }

 private:
  static Status Check(ByteSpan body, size_t d) {
    const float plus = LoadLE<float>(body.data());
    const float minus = LoadLE<float>(body.data() + sizeof(float));
    if (!std::isfinite(plus) || !std::isfinite(minus) || plus < 0 || minus > 0) {
      return DataLoss("onebit: means are not finite numbers of their sign");
    }
    if (!kernels::SignPaddingIsZero(body.subspan(kBitsAt), d)) {
      return DataLoss("onebit: bits in the padding");
    }
    return OkStatus();
  }
  static size_t BodyBytes(size_t d) { return d ? kBitsAt + kernels::SignBytes(d) : 0; }
};

TW_REGISTER(Compressor, onebit, /*wire_id=*/12, NoConfig, OneBit::Create,
            "one bit an element, times the mean of each sign");

}  // namespace
}  // namespace tw
