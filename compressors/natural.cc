// natural: every magnitude becomes a neighbouring power of two, at random so that the mean is x.
//
// Horvath et al., "Natural compression for distributed deep learning", arXiv 1905.10988.
//   |x| in [2^a, 2^(a+1)):  2^(a+1) with probability |x| / 2^a - 1, else 2^a;  0 stays 0
// Body: n exponent bytes, then ceil(n / 8) bytes of sign bits: 9 bits an element
// (core/kernels/natural.h has the details).
// omega = 1/8 for magnitudes in [2^-126, 2^127]. Denormals go to 0 or 2^-126: unbiased, with the
// absolute error of that step. Above 2^127 the value is cut to 2^127, which is biased.
// Random numbers: element i draws number i of the rank's stream. State slots: none.
// Left out: packing of clipped exponents into 8 bits an element.

#include <memory>

#include "core/api/compressor.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/natural.h"

namespace tw {
namespace {

class Natural : public Compressor {
 public:
  static StatusOr<std::unique_ptr<Compressor>> Create(const NoConfig&) {
    return std::unique_ptr<Compressor>(new Natural());
  }

  const CompressorTraits& traits() const override { return traits_; }
  double Delta(const TensorSpec&) const override { return 7.0 / 8.0; }
  double Omega(const TensorSpec&) const override { return 1.0 / 8.0; }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int /*round*/) const override {
    return kernels::NaturalBytes(spec.numel());
  }

  StatusOr<int64_t> EncodeRound(int /*round*/, ByteSpan /*reduced*/, const MessageView& message,
                                const CodecContext& context, MutableByteSpan body) const override {
    const int64_t bytes = kernels::NaturalBytes(message.numel());
    TW_CHECK_LE(bytes, static_cast<int64_t>(body.size()));
    kernels::NaturalEncode(message, context.OwnStream().key, static_cast<uint64_t>(context.offset),
                           body.data());
    return bytes;
  }
  Status DecodeAdd(ByteSpan body, float scale, const CodecContext& /*context*/,
                   std::span<float> out) const override {
    if (!kernels::OnDevice()) {
      TW_RETURN_IF_ERROR(kernels::CheckNatural(body, static_cast<int64_t>(out.size())));
    }
    kernels::NaturalDecodeAdd(body.data(), scale, out);
    return OkStatus();
  }

 private:
  Natural() {
    traits_.merges = {Merge::kGather};
    traits_.unbiased = true;
    traits_.fixed_size = true;
  }

  CompressorTraits traits_;
};

TW_REGISTER(Compressor, natural, /*wire_id=*/9, NoConfig, Natural::Create,
            "powers of two at random, 9 bits an element, unbiased");

}  // namespace
}  // namespace tw
