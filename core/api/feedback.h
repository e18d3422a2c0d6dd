#pragma once
// FeedbackPolicy: error feedback around a compressor. It never knows the wire format; the
// compressor never knows about it.
//
//   Compose(grad) -> message          before encoding
//   Absorb(own decoded, residual)     after the last round of encoding
//   Resolve(mean)                     turns the mean over ranks into what the optimizer sees, in
//   place
//
// Policies are immutable and thread safe; e, h, H, v are state slots keyed by parameter. `h +=
// decode(own body)` goes through the very DecodeAdd the receivers use, so h and H never drift
// apart. Ranks agree that gradients are finite, or roll the whole step back (StateBag's journal).
// State is fp32; fp64 for fp64 parameters.

#include <functional>

#include "absl/functional/function_ref.h"
#include "core/api/compressor.h"

namespace tw {

struct FeedbackTraits {
  bool exact_mean =
      false;  // needs H == mean h_i: kGather, or kSum of an exact_sum codec; never kReencode
  bool needs_unbiased = false;
  bool needs_contraction = false;  // what a codec loses comes back in later messages
  bool dense_first = false;  // the first step goes dense through the policy, so that h_0 = g_i(x_0)
  int state_floats = 0;      // persistent numbers per element and rank, for the memory estimate
};

struct FeedbackContext {
  const TensorSpec* spec = nullptr;
  // What encodes this message; the dense codec for a dense first one. For default constants only
  // (Delta, Omega, traits().lossless).
  const Compressor* compressor = nullptr;
  const StateScope* state = nullptr;  // "feedback/<parameter>/"
  uint64_t step = 0;
  Workspace* scratch = nullptr;  // slot kScratchFeedback of it
};

// out += scale * decode(own body); valid during Absorb only.
using OwnDecoder = absl::FunctionRef<Status(float scale, TensorView out)>;

// Of one exchange of vectors.
struct TurnOptions {
  bool dense = false;  // without compressor and feedback
  // Null, or called on the lane when a parameter's message is encoded; see TurnsCall::sent.
  const std::function<Status(size_t parameter, OwnDecoder own)>* sent = nullptr;
};

class FeedbackPolicy {
 public:
  virtual ~FeedbackPolicy() = default;
  virtual const FeedbackTraits& traits() const = 0;

  // The message in some buffer (a state slot or grad itself), possibly with an addition pending.
  // grad may be overwritten.
  virtual Message Compose(TensorView grad, const FeedbackContext& context) const = 0;
  // `residual` is the buffer of the message, which now holds message - decode(own body).
  virtual Status Absorb(OwnDecoder own, TensorView residual, const FeedbackContext& context) const {
    return OkStatus();
  }
  // `mean` is the mean over ranks of the decoded bodies; on return it is the gradient estimate.
  virtual void Resolve(TensorView mean, const FeedbackContext& context) const {}
  // What is doubtful about these constants with this codec, a line each; asked once before step 1.
  virtual std::vector<std::string> Warnings(const TensorSpec& spec,
                                            const Compressor& compressor) const {
    return {};
  }
};

}  // namespace tw
