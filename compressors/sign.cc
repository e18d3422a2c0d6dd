// sign: the sign of every element, with their mean magnitude (scaled sign: Karimireddy et al.,
// arXiv 1901.09847; signSGD: Bernstein et al., arXiv 1802.04434).
//
//   scale = ||x||_1 / d
//   decode(body)_i = scale * sign(x_i), sign(0) = +1
//   ||C(x)-x||^2 = (1 - ||x||_1^2 / (d ||x||^2)) ||x||^2 <= (1 - 1/d) ||x||^2
//
// Body, little-endian: fp32 scale | ceil(d / 8) bytes, bit i % 8 of byte i / 8 set where x_i < 0,
// padding zero. A zero vector has scale 0. No state. Left out: majority vote.

#include <cmath>
#include <limits>

#include "core/api/compressor.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/signs.h"

namespace tw {
namespace {

constexpr auto kMeans = kernels::SignMeans::kOne;
constexpr size_t kBitsAt = sizeof(float);

class Sign : public Compressor {
 public:
  static StatusOr<std::unique_ptr<Compressor>> Create(const NoConfig&) {
    return std::make_unique<Sign>();
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
      return DataLoss("sign: body of " + std::to_string(body.size()) + " bytes, expected " +
                      std::to_string(BodyBytes(out.size())));
    }
    if (out.empty()) return OkStatus();
    if (!kernels::OnDevice()) TW_RETURN_IF_ERROR(Check(body, out.size()));
    kernels::DecodeSignsAdd(out, scale, kMeans, body.data(), body.data() + kBitsAt);
    return OkStatus();
  }

 private:
  static Status Check(ByteSpan body, size_t d) {
    const float magnitude = LoadLE<float>(body.data());
    if (!std::isfinite(magnitude) || magnitude < 0) {
      return DataLoss("sign: scale is not a finite number >= 0");
    }
    if (!kernels::SignPaddingIsZero(body.subspan(kBitsAt), d)) {
      return DataLoss("sign: bits in the padding");
    }
    return OkStatus();
  }
  static size_t BodyBytes(size_t d) { return d ? kBitsAt + kernels::SignBytes(d) : 0; }
};

TW_REGISTER(Compressor, sign, /*wire_id=*/11, NoConfig, Sign::Create,
            "one bit an element, times the mean magnitude");

}  // namespace
}  // namespace tw
