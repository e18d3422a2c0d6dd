#pragma once
// A whole run of a strategy in `train`: ranks are threads, checkpoints are real.

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "core/engine/checkpoint.h"
#include "core/engine/trainer.h"
#include "tests/core/engine/line_task.h"

namespace tw {

// Spoils a parameter of one rank at one step; from there on its gradients are not finite either.
// With one_batch every loss of a rank is of the same samples.
class SpoiledTask : public LineTask {
 public:
  using LineTask::LineTask;
  at::Tensor Loss(uint64_t step, int64_t micro) override {
    if (static_cast<int64_t>(step) == spoil_at) {
      at::NoGradGuard no_grad;
      weight.flatten()[5] = std::numeric_limits<float>::infinity();
    }
    at::Tensor loss = one_batch ? LineTask::Loss(0, 0) : LineTask::Loss(step, micro);
    if (static_cast<int64_t>(step) == bad_at) loss = loss * std::nan("");
    return loss;
  }
  int64_t spoil_at = -1, bad_at = -1;
  bool one_batch = false;
};

struct RunSetup {
  int ranks = 2;
  std::string strategy = "diloco";
  Keys strategy_keys = {{"local_steps", int64_t{4}}};
  std::string optimizer = "sgdm";
  Keys optimizer_keys = {{"momentum", 0.0}};
  std::string compressor = "none", feedback = "none";
  Keys compressor_keys, feedback_keys;
  bool same_data = false, one_batch = false;
  int spoil_rank = -1, bad_rank = -1;
  int64_t spoil_at = -1, bad_at = -1;
  int64_t stop_after = -1;  // ends there as a killed run would, with checkpoints every step
  std::string run_dir;      // with a checkpoint: goes on from it
  int64_t checkpoint_every = 0;
  TrainerOptions options{.steps = 12, .lr = 0.1, .grad_clip = 0, .check_replicas_every = 1};
};

struct Result {
  Status status;
  std::vector<at::Tensor> weights;  // a rank each
  std::vector<uint64_t> hashes;
  std::map<std::string, std::vector<uint8_t>> state;  // rank 0's
  TrainSummary summary;
  RecordingSink sink;
  int64_t resumed_after = 0;
};

inline Result Train(const RunSetup& setup) {
  Result result;
  result.weights.resize(static_cast<size_t>(setup.ranks));
  result.hashes.resize(static_cast<size_t>(setup.ranks));
  RunRanks(setup.ranks, [&](Communicator& comm) {
    at::set_num_threads(1);
    const size_t rank = static_cast<size_t>(comm.rank());
    SpoiledTask task(setup.same_data ? 0 : comm.rank(), 4, setup.options.accumulate);
    task.one_batch = setup.one_batch;
    if (comm.rank() == setup.spoil_rank) task.spoil_at = setup.spoil_at;
    if (comm.rank() == setup.bad_rank) task.bad_at = setup.bad_at;
    RouteMaker routes;
    PlanOptions plan_options = routes.Options(comm.size());
    PlanRule rule;
    rule.route =
        routes.Make(setup.compressor, setup.feedback, setup.compressor_keys, setup.feedback_keys);
    rule.min_numel = 16;
    plan_options.rules = {rule};
    const auto plan = Plan::Build(SpecsOf(task.parameters()), plan_options);
    TW_CHECK_OK(plan);
    Lane lane;
    StateBag state;
    GradientReducer reducer(task.parameters(), &*plan, &comm, &lane, &state, ReducerOptions{});
    const auto optimizer = MakeVariant<Optimizer>(setup.optimizer, setup.optimizer_keys);
    const auto schedule = MakeVariant<Schedule>("constant");
    const auto strategy = MakeVariant<Strategy>(setup.strategy, setup.strategy_keys);
    CheckpointSpec spec;
    spec.model = task.parameters();
    spec.state = &state;
    int64_t first_step = 0;
    if (!setup.run_dir.empty()) {
      const auto found = LoadNewestCheckpoint(setup.run_dir, spec, comm);
      TW_CHECK_OK(found);
      if (*found) first_step = (*found)->manifest.step;
    }
    TrainerOptions options = setup.options;
    options.checkpoint_every = setup.checkpoint_every;
    RecordingSink sink;
    TrainerParts parts;
    parts.task = &task;
    parts.reducer = &reducer;
    parts.optimizer = optimizer.get();
    parts.schedule = schedule.get();
    parts.strategy = strategy.get();
    parts.state = &state;
    parts.comm = &comm;
    parts.lane = &lane;
    parts.save_checkpoint = [&](int64_t done) -> Status {
      spec.step = done;
      TW_RETURN_IF_ERROR(SaveCheckpoint(setup.run_dir, spec, comm, 1).status());
      return done == setup.stop_after ? NumbersError("killed") : OkStatus();
    };
    if (rank == 0) parts.sinks = {&sink};
    Trainer trainer(parts, options);
    const Status status = trainer.Run(first_step);
    result.weights[rank] = task.weight.detach().clone();
    result.hashes[rank] = ParametersHash(reducer.views());
    if (rank != 0) return;
    result.status = status;
    result.summary = trainer.summary();
    result.sink = sink;
    result.resumed_after = first_step;
    state.ForEach([&](const std::string& name, const StateSlot& slot) {
      const ByteSpan raw = slot.view.raw();
      result.state[name].assign(raw.begin(), raw.end());
    });
  });
  if (!result.status.ok()) return result;
  for (const uint64_t hash : result.hashes) EXPECT_EQ(hash, result.hashes[0]) << "replicas differ";
  return result;
}

}  // namespace tw
