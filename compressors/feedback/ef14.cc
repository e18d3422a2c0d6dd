// ef14: error feedback of Seide et al. (Interspeech 2014), analysed by Stich et al. (arXiv
// 1809.07599) and Karimireddy et al. (arXiv 1901.09847).
//   message = decay*e + g;   e <- message - decode(own body);   estimate = mean
// decay below 1 is the fading memory of DeMo (arXiv 2411.19870) and SparseLoCo (arXiv 2508.15706).
// State: e, shaped as the parameter, per rank, in gradient units (the papers keep lr*e: equal at a
// constant learning rate). It is the message's own buffer, so the codec leaves the new e there and
// nothing is copied. fp32, fp64 for fp64 parameters. Left out: the form with lr inside e.

#include "core/api/feedback.h"
#include "core/kernels/elementwise.h"

namespace tw {
namespace {

struct Ef14Config {
  double decay = 1;
  static FieldList<Ef14Config> Fields() {
    return FieldList<Ef14Config>().Real(
        "decay", &Ef14Config::decay, {0, 1},
        "what is kept of the memory from one message to the next; 1 loses nothing");
  }
};

class Ef14 : public FeedbackPolicy {
 public:
  explicit Ef14(const Ef14Config& config) : decay_(config.decay) {
    traits_.needs_contraction = true;
    traits_.state_floats = 1;
  }
  const FeedbackTraits& traits() const override { return traits_; }

  Message Compose(TensorView grad, const FeedbackContext& context) const override {
    const DType dtype = context.spec->dtype == DType::kF64 ? DType::kF64 : DType::kF32;
    const TensorView e = context.state->Slot("e", context.spec->shape, dtype, Reshard::kKeepMean);
    if (decay_ != 1 && dtype == DType::kF32) kernels::Scale(e.f32(), static_cast<float>(decay_));
    if (decay_ != 1 && dtype == DType::kF64) {
      for (int64_t i = 0; i < e.numel; ++i) static_cast<double*>(e.data)[i] *= decay_;
    }
    return {.buffer = e, .addend = grad, .scale = 1.0f};
  }

 private:
  double decay_;
  FeedbackTraits traits_;
};

StatusOr<std::unique_ptr<FeedbackPolicy>> Create(const Ef14Config& config) {
  return std::make_unique<Ef14>(config);
}

TW_REGISTER(FeedbackPolicy, ef14, 0, Ef14Config, Create,
            "classic error feedback: what a codec lost is added to the next message");

}  // namespace
}  // namespace tw
