#pragma once
// Trainer: the loop. HOT PATH, file 1 of 3:
//   trainer.cc           one step: forward, backward, exchange, update, report
//   gradient_reducer.cc  hooks, buckets, order gate, lane thread
//   bucket_pipeline.cc   one bucket through the wire
// Everything it needs comes in through TrainerParts; it reads no config and knows no variant by
// name.

#include <functional>
#include <string>
#include <vector>

#include "core/api/metrics.h"
#include "core/api/schedule.h"
#include "core/api/strategy.h"
#include "core/api/task.h"
#include "core/engine/gradient_reducer.h"
#include "core/engine/loss_log.h"
#include "core/engine/parameters_hash.h"
#include "core/engine/plan_updater.h"
#include "core/engine/skip_count.h"
#include "core/engine/step_norms.h"
#include "core/engine/step_statistics.h"
#include "core/engine/turn_machine.h"

namespace tw {

struct TrainerOptions {
  int64_t steps = 1000;
  int64_t accumulate = 1;
  double lr = 1e-3;
  uint64_t seed = 1;                   // of strategies' coins and of rounding in optimizer states
  Masters masters = Masters::kNone;    // of bf16 parameters
  double grad_clip = 1.0;              // 0: off
  int64_t check_replicas_every = 100;  // 0: never
  int64_t max_skipped = 20;            // consecutive skips before giving up
  int64_t checkpoint_every = 0;        // 0: at the end only when > 0 would be due
  int64_t metrics_every = 1;
};

// All pointers outlive the trainer.
struct TrainerParts {
  Task* task = nullptr;
  GradientReducer* reducer = nullptr;
  const Optimizer* optimizer = nullptr;
  std::span<const StateTreatment> treatments;  // of its moments, by parameter id; empty: fp32
  const Schedule* schedule = nullptr;
  const Strategy* strategy = nullptr;
  PlanUpdater* plan_updater = nullptr;  // may be null: the plan stays
  StateBag* state = nullptr;
  Communicator* comm = nullptr;
  Lane* lane = nullptr;
  std::vector<MetricSink*> sinks;                             // rank 0's
  std::function<Status(int64_t steps_done)> save_checkpoint;  // collective; called on all ranks
  std::function<int64_t()> peak_tensor_bytes;
  SpanLog* spans = nullptr;  // null: no timeline; else the reducer's, too
  RunDevice device;          // the reducer's
};

class Trainer : private TurnMachine {
 public:
  Trainer(const TrainerParts& parts, const TrainerOptions& options);

  // Steps first_step .. options.steps - 1. Errors are the caller's to print; state is consistent
  // after any of them.
  Status Run(int64_t first_step);
  // Over the steps of this Run; final_loss also over those before a resume.
  TrainSummary summary() const;

 private:
  int64_t step() const override { return step_; }
  int64_t total_steps() const override { return options_.steps; }
  std::span<const ParameterView> parameters() const override { return parts_.reducer->views(); }
  StateBag& state() override { return *parts_.state; }
  double lr() const override { return record_.lr; }
  StatusOr<double> LocalBackward(int64_t batch) override;
  void RecordTurn(const ReduceOutcome& outcome, double loss) override;
  StatusOr<double> ComputeGradients() override;
  StatusOr<bool> FinishExchange() override;
  Status ApplyUpdate() override;
  StatusOr<LocalGradients> ComputeLocalGradients() override;
  Status ApplyLocalUpdate() override;
  void ForgetMoments() override;
  StatusOr<bool> Exchange(std::span<const TensorView> vectors) override;
  Status StartExchange(std::span<const TensorView> vectors) override;
  StatusOr<bool> FinishStarted() override;

  Status Step(int64_t step);
  Status Backward(bool exchange, int64_t batch = 0);
  Status Update(int64_t update, Reshard moments);
  double& OwnUpdates();
  void RecordExchange(const ReduceOutcome& outcome);
  Status CheckReplicas();
  Status Report();
  bool ReportIsDue() const {
    return !parts_.sinks.empty() && record_.step % options_.metrics_every == 0;
  }

  TrainerParts parts_;
  TrainerOptions options_;
  StepRecord record_;  // of this step so far
  int64_t step_ = 0;
  SkipCount skips_;
  bool check_due_ = false;
  bool updated_ = false;  // in this Run
  LossLog losses_;
  StepNorms norms_;
  std::vector<double> started_sums_;  // losses that travel with an exchange in the background
  double residual_norm_ = 0;          // before it, as the memories are the lane's
  TrainSummary summary_;
  StepStatistics statistics_;
  Workspace optimizer_scratch_;
};

}  // namespace tw
