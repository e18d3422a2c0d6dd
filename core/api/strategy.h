#pragma once
// Strategy: the body of a step, i.e. what is exchanged and when. `sync` exchanges gradients every
// step, `diloco` what a round of each rank's own steps has moved. A strategy calls the engine
// through StepMachine and owns nothing else; what changes between steps is in the state bag.

#include "core/api/optimizer.h"
#include "core/base/registry.h"

namespace tw {

enum class Skip : uint8_t {
  kNo = 0,
  kHere = 1,        // this rank alone left its parameters and moments as they were
  kEverywhere = 2,  // all ranks did
};

struct StepResult {
  double loss = 0;  // this rank's mean over its micro-batches
  Skip skip = Skip::kNo;
  const char* why = "";        // it was skipped, for the log
  bool replicas_equal = true;  // afterwards parameters are the same on all ranks, bit for bit
};

struct LocalGradients {
  double loss = 0;  // this rank's mean over its micro-batches
  bool finite = true;
};

// What the engine offers. Called from the main thread.
class StepMachine {
 public:
  virtual ~StepMachine() = default;

  virtual int64_t step() const = 0;         // 0-based
  virtual int64_t total_steps() const = 0;  // of the whole run
  // In registration order, the same on all ranks. A gradient's memory is free for use between an
  // update and the next gradients.
  virtual std::span<const ParameterView> parameters() const = 0;
  // A strategy's slots are "strategy/<parameter>/<slot>".
  virtual StateBag& state() = 0;

  // Gradients of all ranks.
  // Forward and backward over all micro-batches of the step; communication starts during the last
  // backward.
  virtual StatusOr<double> ComputeGradients() = 0;
  // Waits for the exchange. False: some rank had a non-finite gradient and all state is as before
  // the step.
  virtual StatusOr<bool> FinishExchange() = 0;
  // Norm, clipping and the optimizer's update with the scheduled learning rate. Moments are the
  // same on all ranks.
  virtual Status ApplyUpdate() = 0;

  // Gradients of this rank alone: nothing is sent.
  virtual StatusOr<LocalGradients> ComputeLocalGradients() = 0;
  // The same norm, clipping and update; moments and the count of updates are this rank's own.
  virtual Status ApplyLocalUpdate() = 0;
  // This rank's moments start anew.
  virtual void ForgetMoments() = 0;

  // vectors[i], of parameter i's shape and dtype and in any memory, travels as its gradient would,
  // through compressor, feedback, exchange and buckets, and becomes in place what the optimizer
  // would see: the estimate of the mean over ranks. False: some rank's were not finite; vectors
  // and all state are as before. Losses of local steps travel along. At most once a step.
  virtual StatusOr<bool> Exchange(std::span<const TensorView> vectors) = 0;
};

class Strategy {
 public:
  virtual ~Strategy() = default;
  virtual StatusOr<StepResult> Step(StepMachine& machine) const = 0;

  // Before the first step of a run, a resumed one too, and after each Pause.
  virtual Status Continue(StepMachine& machine) const { return OkStatus(); }
  // Before a checkpoint: parameters become what all ranks share, the state bag takes the rest.
  virtual Status Pause(StepMachine& machine) const { return OkStatus(); }

  // For estimates before a run: exchanges a step, and bytes of state for one parameter.
  virtual double ExchangesPerStep() const { return 1; }
  virtual int64_t StateBytes(const TensorSpec& spec) const { return 0; }
};

}  // namespace tw
