// econtrol_m: EControl (arXiv 2311.05645) on a moving average of the gradient, as EF21-SGDM (arXiv
// 2305.15155) does with EF21. Not in either paper.
//   v <- (1-b)*v + b*g, v_0 = g_0;   message = eta*e + v - h;   r = message - decode(own body)
//   e <- (1-eta)*e + r;   h <- h + decode(own body);   H <- H + mean;   estimate = H
// State: h and H (ef21_family.h), and e and v, shaped as the parameter, per rank, in gradient
// units. eta = 0 keeps no e and is ef21m bit for bit.

#include "compressors/feedback/econtrol.h"

namespace tw {
namespace {

struct EControlMConfig {
  std::string eta = "auto";
  double momentum = 0.1;
  std::string init = "gradient";
  static FieldList<EControlMConfig> Fields() {
    return FieldList<EControlMConfig>()
        .Text("eta", &EControlMConfig::eta, {}, EControlEta::kHelp)
        .Real("momentum", &EControlMConfig::momentum, {0, 1, kOpenLow},
              "weight of the newest gradient in the average that is compressed")
        .Text("init", &EControlMConfig::init, {"gradient", "zero"}, kInitHelp);
  }
};

class EControlM : public FeedbackPolicy {
 public:
  EControlM(EControlEta eta, const EControlMConfig& config)
      : eta_(eta),
        momentum_(config.momentum),
        traits_(Ef21Traits(config.init, eta.zero() ? 3 : 4)) {}
  const FeedbackTraits& traits() const override { return traits_; }

  Message Compose(TensorView grad, const FeedbackContext& context) const override {
    const TensorView message = MessageBuffer(grad, context);
    const TensorView h = OwnEstimate(context);
    bool first = false;
    const TensorView v = FeedbackSlot(context, "v", Reshard::kKeepMean, &first);
    const double b = first ? 1.0 : momentum_;  // v_0 = g_0
    const TensorView e =
        eta_.zero() ? TensorView{} : FeedbackSlot(context, "e", Reshard::kKeepMean);
    WithStateType(message, [&](auto zero) {
      using T = decltype(zero);
      const T keep = static_cast<T>(1 - b), take = static_cast<T>(b);
      if (eta_.zero()) {
        kernels::MomentumMessage(Elements<T>(v), Elements<T>(message), Elements<T>(h), keep, take);
      } else {
        kernels::MomentumErrorMessage(Elements<T>(v), Elements<T>(message), Elements<T>(h),
                                      Elements<T>(e), keep, take,
                                      static_cast<T>(eta_.For(context)));
      }
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
  double momentum_;
  FeedbackTraits traits_;
};

StatusOr<std::unique_ptr<FeedbackPolicy>> Create(const EControlMConfig& config) {
  TW_ASSIGN_OR_RETURN(const EControlEta eta, EControlEta::Parse(config.eta));
  return std::make_unique<EControlM>(eta, config);
}

TW_REGISTER(FeedbackPolicy, econtrol_m, 0, EControlMConfig, Create,
            "econtrol on a moving average of the gradient: the least noise of all");

}  // namespace
}  // namespace tw
