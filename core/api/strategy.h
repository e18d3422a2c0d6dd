#pragma once
// Strategy: the body of a step, i.e. what is exchanged and when. `sync` exchanges gradients every
// step. A strategy calls the engine through StepMachine and owns nothing else; what changes between
// steps is in the state bag.

#include "core/base/registry.h"

namespace tw {

struct StepResult {
  double loss = 0;       // this rank's mean over its micro-batches
  bool skipped = false;  // some rank had a non-finite gradient: nothing was changed on any
};

// What the engine offers. Called from the main thread.
class StepMachine {
 public:
  virtual ~StepMachine() = default;
  // Forward and backward over all micro-batches of the step; communication starts during the last
  // backward.
  virtual StatusOr<double> ComputeGradients() = 0;
  // Waits for the exchange. False: some rank had a non-finite gradient and all state is as before
  // the step.
  virtual StatusOr<bool> FinishExchange() = 0;
  // Norm, clipping and the optimizer's update with the scheduled learning rate.
  virtual Status ApplyUpdate() = 0;
};

class Strategy {
 public:
  virtual ~Strategy() = default;
  virtual StatusOr<StepResult> Step(StepMachine& machine) const = 0;
};

}  // namespace tw
