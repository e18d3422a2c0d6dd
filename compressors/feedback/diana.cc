// diana: Mishchenko, Gorbunov, Takac, Richtarik (arXiv 1901.09269). For unbiased codecs.
//   message = g - h;   h <- h + alpha*decode(own body)
//   estimate = H + mean;   H <- H + alpha*mean
// alpha <= 1/(1+omega), which "auto" takes from the codec. A lossless message always counts in
// full (alpha = 1), so that a dense first one makes h the gradient. State: h and H
// (ef21_family.h). Left out: the proximal step and the momentum of the paper.

#include <cmath>

#include "compressors/feedback/ef21_family.h"

namespace tw {
namespace {

struct DianaConfig {
  std::string alpha = "auto";
  std::string init = "gradient";
  static FieldList<DianaConfig> Fields() {
    return FieldList<DianaConfig>()
        .Text("alpha", &DianaConfig::alpha, {},
              "part of a message that h takes over, in (0, 1]; auto is 1/(1+omega) of the codec")
        .Text("init", &DianaConfig::init, {"gradient", "zero"}, kInitHelp);
  }
};

class Diana : public FeedbackPolicy {
 public:
  Diana(double alpha, const std::string& init) : alpha_(alpha), traits_(Ef21Traits(init, 2)) {
    traits_.needs_unbiased = true;
    traits_.needs_contraction = false;  // alpha takes what Omega asks for
  }
  const FeedbackTraits& traits() const override { return traits_; }

  Message Compose(TensorView grad, const FeedbackContext& context) const override {
    return {.buffer = MessageBuffer(grad, context), .addend = OwnEstimate(context), .scale = -1.0f};
  }
  Status Absorb(OwnDecoder own, TensorView, const FeedbackContext& context) const override {
    return own(static_cast<float>(Alpha(context)), OwnEstimate(context));
  }
  void Resolve(TensorView mean, const FeedbackContext& context) const override {
    // The very factor that Absorb used, rounded to fp32, or H would leave the mean of h.
    const float alpha = static_cast<float>(Alpha(context));
    AdvanceEstimate(mean, context, [&](auto estimate, auto message) {
      kernels::DampedAdvance(estimate, message, alpha);
    });
  }
  std::vector<std::string> Warnings(const TensorSpec& spec,
                                    const Compressor& compressor) const override {
    const double limit = 1 / (1 + compressor.Omega(spec));
    if (alpha_ <= limit) return {};
    return {"feedback.alpha = " + ToToml(alpha_) + " is above 1/(1+omega) = " + ToToml(limit) +
            " for " + spec.name + ": diana may diverge"};
  }

 private:
  double Alpha(const FeedbackContext& context) const {
    if (context.compressor->traits().lossless) return 1;
    return alpha_ >= 0 ? alpha_ : 1 / (1 + context.compressor->Omega(*context.spec));
  }

  double alpha_;  // negative: auto
  FeedbackTraits traits_;
};

StatusOr<std::unique_ptr<FeedbackPolicy>> Create(const DianaConfig& config) {
  TW_ASSIGN_OR_RETURN(const double alpha, AutoOrNumber("alpha", config.alpha, 0, false, 1));
  return std::make_unique<Diana>(alpha, config.init);
}

TW_REGISTER(FeedbackPolicy, diana, 0, DianaConfig, Create,
            "unbiased codecs: compresses the change of the gradient, without bias");

}  // namespace
}  // namespace tw
