// econtrol: error feedback with a controlled share of the error (Gao, Islamov, Stich, arXiv
// 2311.05645).
//   message = eta*e + g - h;   r = message - decode(own body)
//   e <- (1-eta)*e + r;   h <- h + decode(own body);   H <- H + mean;   estimate = H
// State: h and H (ef21_family.h), and e, shaped as the parameter, per rank, in gradient units.
// eta = 0 keeps no e and is ef21 bit for bit. Left out: EC-Ideal, the step inside e.

#include "compressors/feedback/econtrol.h"

namespace tw {
namespace {

struct EControlConfig {
  std::string eta = "auto";
  std::string init = "gradient";
  static FieldList<EControlConfig> Fields() {
    return FieldList<EControlConfig>()
        .Text("eta", &EControlConfig::eta, {}, EControlEta::kHelp)
        .Text("init", &EControlConfig::init, {"gradient", "zero"}, kInitHelp);
  }
};

class EControl : public FeedbackPolicy {
 public:
  EControl(EControlEta eta, const std::string& init)
      : eta_(eta), traits_(Ef21Traits(init, eta.zero() ? 2 : 3)) {}
  const FeedbackTraits& traits() const override { return traits_; }

  Message Compose(TensorView grad, const FeedbackContext& context) const override {
    const TensorView message = MessageBuffer(grad, context);
    const TensorView h = OwnEstimate(context);
    if (eta_.zero()) return {.buffer = message, .addend = h, .scale = -1.0f};
    const TensorView e = FeedbackSlot(context, "e", Reshard::kKeepMean);
    WithStateType(message, [&](auto zero) {
      using T = decltype(zero);
      kernels::ErrorMessage(Elements<T>(message), Elements<T>(h), Elements<T>(e),
                            static_cast<T>(eta_.For(context)));
    });
    return {message};
  }
  Status Absorb(OwnDecoder own, TensorView residual,
                const FeedbackContext& context) const override {
    if (!eta_.zero()) AbsorbError(residual, eta_.For(context), context);
    return own(1.0f, OwnEstimate(context));
  }
  void Resolve(TensorView mean, const FeedbackContext& context) const override {
    AdvanceEstimate(mean, context);
  }
  std::vector<std::string> Warnings(const TensorSpec& spec,
                                    const Compressor& compressor) const override {
    return eta_.Warnings(spec, compressor);
  }

 private:
  EControlEta eta_;
  FeedbackTraits traits_;
};

StatusOr<std::unique_ptr<FeedbackPolicy>> Create(const EControlConfig& config) {
  TW_ASSIGN_OR_RETURN(const EControlEta eta, EControlEta::Parse(config.eta));
  return std::make_unique<EControl>(eta, config.init);
}

TW_REGISTER(FeedbackPolicy, econtrol, 0, EControlConfig, Create,
            "ef21 plus a controlled share of the error: any data split, any batch size");

}  // namespace
}  // namespace tw
