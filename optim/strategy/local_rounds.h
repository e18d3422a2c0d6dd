#pragma once
// What strategies of local steps share: rounds of H steps that each rank makes on its own, then one
// exchange of what they moved.
//
//   anchor a, the same on all ranks; own parameters x_i = a at the start of a round
//   H times:  x_i <- optimizer(x_i, grad f_i(x_i))          moments, clipping, schedule: each
//   rank's d_i = a - x_i  ("pseudo-gradient");  D = exchange(d_1..d_n)   as gradients travel a <-
//   MoveAnchor(a, D);  x_i <- a                        the variant's part
//
// A round ends after every step whose number is a multiple of H, and after the last step of a run.
// A rank that finds a non-finite gradient leaves out that local step, alone. When some rank's d_i
// is not finite the round is thrown away on all: x_i <- a, no memory of errors or of the outer step
// changes, and the rank's moments start anew.
//
// A late round (delay_steps T > 0; Streaming DiLoCo, arXiv 2501.18512, for one fragment) does not
// wait for its exchange: s_i = x_i is remembered, D is under way while the rank makes T more steps,
// which count for the next round, and then
//   a <- MoveAnchor(a, D);  x_i <- a + (x_i - s_i)
// With T = H the wire has a whole round's time. The last round of a run is never late. What is
// under way when a checkpoint is due is waited for, kept, and applied when it would have been.
//
// State: other, shaped as the parameter. While training it is the anchor, and the parameters are
// the rank's own; between Pause and Continue the two have changed places, so that a checkpoint's
// model is the anchor and "other" the rank's own parameters (Reshard::kKeepMean: at another number
// of ranks the mean of what was moved so far is kept). The d_i use the gradients' memory. Late
// rounds have s_i and D besides, and "pending".

#include "core/api/strategy.h"

namespace tw {

class LocalRounds : public Strategy {
 public:
  StatusOr<StepResult> Step(StepMachine& machine) const override;
  Status Continue(StepMachine& machine) const override;
  Status Pause(StepMachine& machine) const override;
  // A rank's own parameters live in the model between steps: many clients of one process would need
  // a slot for them.
  Place place() const override { return Place::kTrainOnly; }
  double ExchangesPerStep() const override { return 1.0 / static_cast<double>(local_steps_); }
  int64_t StateBytes(const TensorSpec& spec) const override {
    return spec.numel() * DTypeBytes(spec.dtype) * (delay_steps_ > 0 ? 3 : 1);
  }

 protected:
  // 0 <= delay_steps <= local_steps
  explicit LocalRounds(int64_t local_steps, int64_t delay_steps = 0)
      : local_steps_(local_steps), delay_steps_(delay_steps) {}
  // anchor.value moves by anchor.grad, which is D. The same numbers on all ranks give the same
  // bits.
  virtual void MoveAnchor(const ParameterView& anchor, StateBag& state) const = 0;

 private:
  bool EndsRound(const StepMachine& machine) const;
  Status EndRound(StepMachine& machine, StepResult* result) const;
  Status SendRound(StepMachine& machine) const;
  Status TakeRound(StepMachine& machine, StepResult* result) const;

  int64_t local_steps_;
  int64_t delay_steps_;
};

}  // namespace tw
