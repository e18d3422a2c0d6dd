// ef14: error feedback of Seide et al. (Interspeech 2014), analysed by Stich et al. (arXiv
// 1809.07599) and Karimireddy et al. (arXiv 1901.09847).
//   message = e + g;   e <- message - decode(own body);   estimate = mean
// State: e, shaped as the parameter, per rank, in gradient units (the papers keep lr*e: equal at a
// constant learning rate). It is the message's own buffer, so the codec leaves the new e there and
// nothing is copied. fp32, fp64 for fp64 parameters. Left out: the form with lr inside e.

#include "core/api/feedback.h"

namespace tw {
namespace {

class Ef14 : public FeedbackPolicy {
 public:
  Ef14() { traits_.state_floats = 1; }
  const FeedbackTraits& traits() const override { return traits_; }

  Message Compose(TensorView grad, const FeedbackContext& context) const override {
    const DType dtype = context.spec->dtype == DType::kF64 ? DType::kF64 : DType::kF32;
    const TensorView e = context.state->Slot("e", context.spec->shape, dtype, Reshard::kKeepMean);
    return {.buffer = e, .addend = grad, .scale = 1.0f};
  }

 private:
  FeedbackTraits traits_;
};

StatusOr<std::unique_ptr<FeedbackPolicy>> Create(const NoConfig&) {
  return std::make_unique<Ef14>();
}

TW_REGISTER(FeedbackPolicy, ef14, 0, NoConfig, Create,
            "classic error feedback: what a codec lost is added to the next message");

}  // namespace
}  // namespace tw
