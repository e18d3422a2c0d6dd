// ef21m: EF21-SGDM, EF21 on a moving average of the gradient (Fatkhullin, Tyurin, Richtarik, arXiv
// 2305.15155).
//   v <- (1-b)*v + b*g, v_0 = g_0;   message = v - h
//   h <- h + decode(own body);   H <- H + mean;   estimate = H
// State: h and H (ef21_family.h), and v, shaped as the parameter, per rank, in gradient units.
// Left out: double momentum (EF21-SGD2M). The estimate is already averaged: momentum of the
// optimizer comes on top of it.

#include "compressors/feedback/ef21_family.h"

namespace tw {
namespace {

struct Ef21mConfig {
  double momentum = 0.1;
  std::string init = "gradient";
  static FieldList<Ef21mConfig> Fields() {
    return FieldList<Ef21mConfig>()
        .Real("momentum", &Ef21mConfig::momentum, {0, 1, kOpenLow},
              "weight of the newest gradient in the average that is compressed")
        .Text("init", &Ef21mConfig::init, {"gradient", "zero"}, kInitHelp);
  }
};

class Ef21m : public FeedbackPolicy {
 public:
  explicit Ef21m(const Ef21mConfig& config)
      : momentum_(config.momentum), traits_(Ef21Traits(config.init, 3)) {}
  const FeedbackTraits& traits() const override { return traits_; }

  Message Compose(TensorView grad, const FeedbackContext& context) const override {
    const TensorView message = MessageBuffer(grad, context);
    const TensorView h = OwnEstimate(context);
    bool first = false;
    const TensorView v = FeedbackSlot(context, "v", Reshard::kKeepMean, &first);
    const double b = first ? 1.0 : momentum_;  // v_0 = g_0
    WithStateType(message, [&](auto zero) {
      using T = decltype(zero);
      kernels::MomentumMessage(Elements<T>(v), Elements<T>(message), Elements<T>(h),
                               static_cast<T>(1 - b), static_cast<T>(b));
    });
    return {message};
  }
  Status Absorb(OwnDecoder own, TensorView, const FeedbackContext& context) const override {
    return own(1.0f, OwnEstimate(context));
  }
  void Resolve(TensorView mean, const FeedbackContext& context) const override {
    AdvanceEstimate(mean, context);
  }

 private:
  double momentum_;
  FeedbackTraits traits_;
};

StatusOr<std::unique_ptr<FeedbackPolicy>> Create(const Ef21mConfig& config) {
  return std::make_unique<Ef21m>(config);
}

TW_REGISTER(FeedbackPolicy, ef21m, 0, Ef21mConfig, Create,
            "ef21 on a moving average of the gradient: less noise, small batches");

}  // namespace
}  // namespace tw
