// ef21: Richtarik, Sokolov, Fatkhullin (arXiv 2106.05203).
//   message = g - h;   h <- h + decode(own body);   H <- H + mean;   estimate = H
// The subtraction is left pending for the codec's own pass. State: h and H (ef21_family.h); the
// server's g of the paper is H, kept by every rank. Left out: EF21+ (the better of two messages),
// partial participation.

#include "compressors/feedback/ef21_family.h"

namespace tw {
namespace {

struct Ef21Config {
  std::string init = "gradient";
  static FieldList<Ef21Config> Fields() {
    return FieldList<Ef21Config>().Text("init", &Ef21Config::init, {"gradient", "zero"}, kInitHelp);
  }
};

class Ef21 : public FeedbackPolicy {
 public:
  explicit Ef21(const Ef21Config& config) : traits_(Ef21Traits(config.init, 2)) {}
  const FeedbackTraits& traits() const override { return traits_; }

  Message Compose(TensorView grad, const FeedbackContext& context) const override {
    return {.buffer = MessageBuffer(grad, context), .addend = OwnEstimate(context), .scale = -1.0f};
  }
  Status Absorb(OwnDecoder own, TensorView, const FeedbackContext& context) const override {
    return own(1.0f, OwnEstimate(context));
  }
  void Resolve(TensorView mean, const FeedbackContext& context) const override {
    AdvanceEstimate(mean, context);
  }

 private:
  FeedbackTraits traits_;
};

StatusOr<std::unique_ptr<FeedbackPolicy>> Create(const Ef21Config& config) {
  return std::make_unique<Ef21>(config);
}

TW_REGISTER(FeedbackPolicy, ef21, 0, Ef21Config, Create,
            "compresses the change of the gradient; the optimizer sees a dense estimate");

}  // namespace
}  // namespace tw
