// randk: k random elements (Wangni et al., arXiv 1710.09854; Stich, Cordonnier, Jaggi, arXiv
// 1809.07599).
//
//   k = clamp(round(ratio * d), 1, d);  S = uniform k-subset drawn from (seed, step, parameter)
//   contractive: decode(body)_i = x_i         for i in S, else 0
//                E||C(x) - x||^2 = (1 - k/d) ||x||^2
//   unbiased:    decode(body)_i = (d/k) x_i   for i in S, else 0
//                E||Q(x) - x||^2 = (d/k - 1) ||x||^2
//
// Body, little-endian: k fp32 values x_i in ascending order of i. Indices do not travel: S is drawn
// again by whoever decodes.
// shared indices, the default: all ranks draw the same S and bodies add up element by element, but
// the variance of the mean over ranks does not shrink with their number. own indices: the sender's
// rank is among what S is drawn from; bodies are gathered, and the mean's variance is 1/n of one
// rank's, which the rates of DIANA, MARINA and MASHA1 count on.
// contractive is the default: it is what error feedback (ef14, ef21, econtrol) wants. Without
// feedback it shrinks every step by k/d on average; take unbiased there, and under diana.
// No state.

#include <limits>

#include "compressors/keep_count.h"
#include "core/api/compressor.h"
#include "core/kernels/reduce.h"
#include "core/kernels/subset.h"

namespace tw {
namespace {

struct RandKConfig {
  double ratio = 0.01;
  std::string mode = "contractive";
  std::string indices = "shared";
  static FieldList<RandKConfig> Fields() {
    return FieldList<RandKConfig>()
        .Real("ratio", &RandKConfig::ratio, {0, 1, kOpenLow},
              "fraction of the elements that travel")
        .Text("mode", &RandKConfig::mode, {"contractive", "unbiased"},
              "contractive: as they are, for error feedback; unbiased: times d/k")
        .Text("indices", &RandKConfig::indices, {"shared", "own"},
              "shared: all ranks draw the same, bodies add up; own: each rank its own, gathered");
  }
};

class RandK : public Compressor {
 public:
  explicit RandK(const RandKConfig& config)
      : ratio_(config.ratio),
        shared_(config.indices == "shared"),
        traits_{.merges = shared_ ? std::vector<Merge>{Merge::kSum, Merge::kGather}
                                  : std::vector<Merge>{Merge::kGather},
                .unbiased = config.mode == "unbiased",
                .exact_omega = config.mode == "unbiased",
                .exact_sum = shared_,
                .fixed_size = true,
                .knob = {.key = "ratio", .value = config.ratio, .low = 1e-9, .high = 1.0}} {}
  static StatusOr<std::unique_ptr<Compressor>> Create(const RandKConfig& config) {
    return std::make_unique<RandK>(config);
  }

  const CompressorTraits& traits() const override { return traits_; }
  double Delta(const TensorSpec& spec) const override {
    if (traits_.unbiased) return 0;
    return 1.0 / InverseFraction(spec.numel());
  }
  double Omega(const TensorSpec& spec) const override {
    if (!traits_.unbiased) return std::numeric_limits<double>::infinity();
    return InverseFraction(spec.numel()) - 1.0;
  }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override {
    return KeepCount(ratio_, spec.numel()) * DTypeBytes(DType::kF32);
  }

  StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView& message,
                                const CodecContext& context, MutableByteSpan body) const override {
    const int64_t size = KeepCount(ratio_, message.numel()) * DTypeBytes(DType::kF32);
    TW_CHECK_GE(static_cast<int64_t>(body.size()), size);
    kernels::TakeMarked(message, Indices(message.numel(), context), Factor(message.numel()),
                        body.data());
    return size;
  }

  Status DecodeAdd(ByteSpan body, float scale, const CodecContext& context,
                   std::span<float> out) const override {
    const int64_t d = static_cast<int64_t>(out.size());
    const int64_t expected = KeepCount(ratio_, d) * DTypeBytes(DType::kF32);
    if (static_cast<int64_t>(body.size()) != expected) {
      return DataLoss("randk: body of " + std::to_string(body.size()) + " bytes, expected " +
                      std::to_string(expected));
    }
    kernels::AddMarked(out, Indices(d, context), scale * Factor(d), body.data());
    return OkStatus();
  }

  // Their expectation: that of one draw says little about the next.
  Status OptionErrors(std::span<const Compressor* const> options, std::span<const float> message,
                      const CodecContext& context, std::span<double> squared) const override {
    const double norm = kernels::SumOfSquares(message);
    for (size_t i = 0; i < options.size(); ++i) {
      const double lost = traits_.unbiased ? options[i]->Omega(*context.spec)
                                           : 1.0 - options[i]->Delta(*context.spec);
      squared[i] = lost * norm;
    }
    return OkStatus();
  }

 private:
  double InverseFraction(int64_t d) const {
    return d ? static_cast<double>(d) / static_cast<double>(KeepCount(ratio_, d)) : 1.0;
  }
  float Factor(int64_t d) const {
    return traits_.unbiased ? static_cast<float>(InverseFraction(d)) : 1.0f;
  }
  std::span<const uint64_t> Indices(int64_t d, const CodecContext& context) const {
    const size_t numel = static_cast<size_t>(d);
    const auto bitmap = context.scratch->Get<uint64_t>(kScratchCodec0, kernels::BitmapWords(numel));
    const RngStream rng = shared_ ? context.SharedStream() : context.OwnStream();
    kernels::MarkSubset(rng.key, numel, static_cast<size_t>(KeepCount(ratio_, d)), bitmap);
    return bitmap;
  }

  double ratio_;
  bool shared_;
  CompressorTraits traits_;
};

TW_REGISTER(Compressor, randk, /*wire_id=*/5, RandKConfig, RandK::Create,
            "random elements at indices that are drawn, not sent; shared by all ranks or own");

}  // namespace
}  // namespace tw
