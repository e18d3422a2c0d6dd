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
#include "core/engine/plan_updater.h"

namespace tw {

struct TrainerOptions {
  int64_t steps = 1000;
  int64_t accumulate = 1;
  double lr = 1e-3;
  double grad_clip = 1.0;              // 0: off
  int64_t check_replicas_every = 100;  // 0: never
  int64_t max_skipped = 20;      // consecutive steps with a non-finite gradient before giving up
  int64_t checkpoint_every = 0;  // 0: at the end only when > 0 would be due
  int64_t metrics_every = 1;
};

// All pointers outlive the trainer.
struct TrainerParts {
  Task* task = nullptr;
  GradientReducer* reducer = nullptr;
  const Optimizer* optimizer = nullptr;
  const Schedule* schedule = nullptr;
  const Strategy* strategy = nullptr;
  PlanUpdater* plan_updater = nullptr;  // may be null: the plan stays
  StateBag* state = nullptr;
  Communicator* comm = nullptr;
  Lane* lane = nullptr;
  std::vector<MetricSink*> sinks;                             // rank 0's
  std::function<Status(int64_t steps_done)> save_checkpoint;  // collective; called on all ranks
  std::function<int64_t()> peak_tensor_bytes;
};

struct TrainSummary {
  int64_t steps = 0;
  int64_t tokens = 0;
  int64_t skipped = 0;
  double final_loss = 0;  // mean of the last 20 steps, over ranks
  double wall_s = 0;
  double step_ms_median = 0;
  double exposed_ms_median = 0;
  double wire_bytes_per_step = 0;
  double payload_bytes_per_step = 0;
  int64_t dense_bytes_per_step = 0;
};

class Trainer : private StepMachine {
 public:
  Trainer(const TrainerParts& parts, const TrainerOptions& options);

  // Steps first_step .. options.steps - 1. Errors are the caller's to print; state is consistent
  // after any of them.
  Status Run(int64_t first_step);
  // Over the steps of this Run; final_loss also over those before a resume.
  TrainSummary summary() const;

 private:
  StatusOr<double> ComputeGradients() override;
  StatusOr<bool> FinishExchange() override;
  Status ApplyUpdate() override;

  Status Step(int64_t step);
  Status Report();
  void KeepLoss();
  double ResidualNorm() const;

  TrainerParts parts_;
  TrainerOptions options_;
  StepRecord record_;
  int64_t step_ = 0;
  int64_t skipped_in_a_row_ = 0;
  TrainSummary summary_;
  std::vector<double> step_ms_, exposed_ms_;
  double wire_bytes_ = 0, payload_bytes_ = 0;
};

// XXH3-64 over the parameters' bytes in name order.
uint64_t ParametersHash(std::span<const ParameterView> parameters);

}  // namespace tw
