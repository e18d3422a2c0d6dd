#pragma once
// A run of `train` inside an experiment: the same config keys, Assembly and Trainer, on ranks that
// are threads of this process; nothing is written and nothing logged.
//
//   TW_ASSIGN_OR_RETURN(const Trained run,
//                       lab.Train({.label = "powersgd", .seed = seed, .ranks = 4,
//                                  .settings = {"task.name=image", "data.path=synthetic",
//                                               "model.name=mlp", "train.steps=300",
//                                               "compressor.name=powersgd", ...}}));
//
// The number of ranks is the training's own: a result does not depend on how many MPI ranks the lab
// has. Rank 0 of the lab trains, the others wait for its numbers and get the same ones. Each rank
// of the training computes with one thread, so that sums are formed in one order on any machine.
// Exchanges are flat (no two levels); keys of [run], [metrics] and [checkpoint] are of no use here.

#include "launch/lab/lab_context.h"

namespace tw {

struct LabTraining {
  std::string label;  // of the series in tables and plots
  uint64_t seed = 1;  // train.seed: of data, weights, batches and codecs
  int ranks = 4;
  // "section.key=value"; what they leave out is as in `train`. One that does nothing is an error.
  std::vector<std::string> settings;
  int64_t points = 10;  // how many of the curve are measured, evenly spread, with the last
};

// A round of the planner over all parameters it chooses for: bytes of a step, and the sum of
// errors. "uniform" is what the config asks for, on the same messages.
struct TrainedPlan {
  double bytes = 0, uniform_bytes = 0;
  double error = 0, uniform_error = 0;
};

struct Trained {
  // Metrics: loss, the mean over ranks and over the steps since the last point; eval_loss of the
  // validation split, of which each rank evaluates a part with its own model (in the middle of a
  // round of local steps these differ); eval_error = 1 - accuracy where the task has one.
  // uplink_bytes: payloads, each counted once, of all ranks; total_bytes: all that all ranks
  // handed to the transport, control numbers included. Diverged: it gave up (train.max_skipped), or
  // ended at numbers that are not finite.
  Curve curve;
  int64_t steps = 0;
  int64_t num_parameters = 0;  // elements
  std::vector<TrainedPlan> plans;
};

// The same without a lab, in this process. Errors: those of `train`, divergence excepted.
StatusOr<Trained> TrainInThreads(const LabTraining& training);

}  // namespace tw
