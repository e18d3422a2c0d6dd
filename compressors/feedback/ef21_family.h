#pragma once
// What ef21, ef21m, econtrol, econtrol_m and diana share: an own estimate h of the gradient, kept
// by every rank, and the mean H of all of them, kept alike on every rank.
//
//   message = what the estimate misses;   h += decode(own body);   H += mean;   estimate = H
//
// State slots, shaped as the parameter: h per rank, H replicated, and for half-precision
// parameters `message`, the fp32 buffer in which the message is composed (the gradient's own type
// would round it, and the residual with it). All fp32; fp64 for fp64 parameters.

#include <span>
#include <string>

#include "absl/strings/numbers.h"
#include "core/api/convert.h"
#include "core/api/feedback.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/feedback.h"

namespace tw {

inline constexpr char kInitHelp[] =
    "h starts as the first gradient, sent dense, or as zero and the first message is compressed";

inline FeedbackTraits Ef21Traits(const std::string& init, int state_floats) {
  FeedbackTraits traits;
  traits.exact_mean = true;
  traits.needs_contraction = true;
  traits.dense_first = init == "gradient";
  traits.state_floats = state_floats;
  return traits;
}

inline TensorView FeedbackSlot(const FeedbackContext& context, const char* name, Reshard reshard,
                               bool* created = nullptr) {
  const DType dtype = context.spec->dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  return context.state->Slot(name, context.spec->shape, dtype, reshard, created);
}
inline TensorView OwnEstimate(const FeedbackContext& context) {
  return FeedbackSlot(context, "h", Reshard::kKeepMean);
}
inline TensorView MeanEstimate(const FeedbackContext& context) {
  return FeedbackSlot(context, "H", Reshard::kReplicated);
}

// The gradient in the type of the state: grad itself, or its copy in the slot `message`.
inline TensorView MessageBuffer(TensorView grad, const FeedbackContext& context) {
  if (grad.dtype == (context.spec->dtype == DType::kF64 ? DType::kF64 : DType::kF32)) return grad;
  const TensorView buffer = FeedbackSlot(context, "message", Reshard::kKeepMean);
  FillZero(buffer);
  AddScaled(buffer, grad, 1.0f);
  return buffer;
}

// A view of the state's type as a span. REQUIRES: T is that type.
template <class T>
std::span<T> Elements(TensorView view) {
  return {static_cast<T*>(view.data), static_cast<size_t>(view.numel)};
}

// f(T{}) with T the type of `view`: double for fp64, else float.
template <class F>
void WithStateType(TensorView view, F&& f) {
  if (view.dtype == DType::kF64) {
    f(double{});
  } else {
    TW_CHECK(view.dtype == DType::kF32);
    f(float{});
  }
}

// advance(span of H, span of the mean) over H and `mean`, which may be of another type and is then
// converted in small pieces, there and back.
template <class F>
void AdvanceEstimate(TensorView mean, const FeedbackContext& context, F&& advance) {
  const TensorView estimate = MeanEstimate(context);
  TW_CHECK_EQ(mean.numel, estimate.numel);
  WithStateType(estimate, [&](auto zero) {
    using T = decltype(zero);
    const std::span<T> all = Elements<T>(estimate);
    if (mean.dtype == estimate.dtype) return advance(all, Elements<T>(mean));
    if (kernels::OnDevice()) {  // one piece: launches cost more than memory
      const TensorView copy{context.scratch->Get<T>(kScratchFeedback, all.size()).data(),
                            estimate.dtype, mean.numel};
      FillZero(copy);
      AddScaled(copy, mean, 1.0f);
      advance(all, Elements<T>(copy));
      FillZero(mean);
      return AddScaled(mean, copy, 1.0f);
    }
    constexpr int64_t kPiece = 256;
    T piece[kPiece];
    for (int64_t at = 0; at < mean.numel; at += kPiece) {
      const int64_t n = std::min(kPiece, mean.numel - at);
      const TensorView part{static_cast<uint8_t*>(mean.data) + at * DTypeBytes(mean.dtype),
                            mean.dtype, n};
      const TensorView copy{piece, estimate.dtype, n};
      FillZero(copy);
      AddScaled(copy, part, 1.0f);
      advance(all.subspan(static_cast<size_t>(at), static_cast<size_t>(n)),
              std::span<T>(piece, static_cast<size_t>(n)));
      FillZero(part);
      AddScaled(part, copy, 1.0f);
    }
  });
}

// H += mean;  mean = H
inline void AdvanceEstimate(TensorView mean, const FeedbackContext& context) {
  AdvanceEstimate(mean, context,
                  [](auto estimate, auto message) { kernels::Advance(estimate, message); });
}

// Reads a key that is "auto" or a number in [low, high]; *is_auto tells which.
inline StatusOr<double> AutoOrNumber(const std::string& key, const std::string& text, double low,
                                     bool low_allowed, double high) {
  if (text == "auto") return -1.0;
  double value = 0;
  if (absl::SimpleAtod(text, &value) && (low_allowed ? value >= low : value > low) &&
      value <= high) {
    return value;
  }
  return ConfigError("feedback." + key + " = \"" + text + "\" is not allowed; it must be auto or " +
                     "a number in " + RangeText({low, high, low_allowed ? kClosed : kOpenLow}));
}

}  // namespace tw
