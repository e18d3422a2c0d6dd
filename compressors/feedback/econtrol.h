#pragma once
// The constant eta of econtrol and econtrol_m: how much of the error goes into the next message.

#include <string>
#include <vector>

#include "compressors/feedback/ef21_family.h"

namespace tw {

// "auto" or a number >= 0, as the key eta holds it.
class EControlEta {
 public:
  static constexpr char kHelp[] =
      "part of the error in the next message, >= 0; auto is delta/5 of the codec, 0 is ef21";
  // Where the codec promises no contraction: delta/5 of a codec that keeps a tenth.
  static constexpr double kUnknownDelta = 0.02;

  static StatusOr<EControlEta> Parse(const std::string& text) {
    EControlEta eta;
    TW_ASSIGN_OR_RETURN(eta.value_, AutoOrNumber("eta", text, 0, true, 1));
    return eta;
  }
  bool zero() const { return value_ == 0; }

  double For(const FeedbackContext& context) const {
    return value_ >= 0 ? value_ : Auto(context.compressor->Delta(*context.spec));
  }
  // Above delta/4 the error oscillates and may grow (COMMUNICATION.md of the design: 0.2 diverges
  // at delta = 0.1 under noise, 0.05 without).
  std::vector<std::string> Warnings(const TensorSpec& spec, const Compressor& compressor) const {
    const double delta = compressor.Delta(spec);
    if (value_ < 0 && delta <= 0) {
      return {"the codec of " + spec.name + " promises no contraction: feedback.eta = auto takes " +
              ToToml(kUnknownDelta)};
    }
    if (value_ > 0 && delta > 0 && value_ > delta / 4) {
      return {"feedback.eta = " + ToToml(value_) + " is above delta/4 = " + ToToml(delta / 4) +
              " for " + spec.name + ": econtrol may diverge"};
    }
    return {};
  }

 private:
  static double Auto(double delta) { return delta > 0 ? delta / 5 : kUnknownDelta; }
  double value_ = -1;  // negative: auto
};

// e <- (1 - eta) * e + r, which is the paper's e + g - h - D.
inline void AbsorbError(TensorView residual, double eta, const FeedbackContext& context) {
  const TensorView e = FeedbackSlot(context, "e", Reshard::kKeepMean);
  WithStateType(e, [&](auto zero) {
    using T = decltype(zero);
    kernels::ErrorMemory(Elements<T>(e), Elements<T>(residual), static_cast<T>(1 - eta));
  });
}

}  // namespace tw
