#pragma once
// The composition root: from a config to the objects of a run. Registry look-ups happen here, once;
// everything below gets what it needs through its constructor.

#include <memory>
#include <string>
#include <vector>

#include "core/api/strategy.h"
#include "core/api/task.h"
#include "core/engine/plan.h"
#include "core/engine/plan_updater.h"
#include "core/engine/trainer.h"
#include "launch/settings.h"
#include "launch/world.h"

namespace tw {

// A config with its settings read; `idle` holds lines about settings that do nothing.
struct LoadedConfig {
  Config config;
  Settings settings;
  std::string compared;  // what must be equal across a resume
  uint64_t hash = 0;     // of that
  std::string shared;    // what must be equal on all ranks: the same and more
  std::vector<std::string> idle;

  // `path` may be empty: defaults and overrides only. `own` names words of the command that it has
  // taken out of `overrides` before, as ranks of explain; they are named to who mistypes one.
  static StatusOr<LoadedConfig> Load(const std::string& path,
                                     const std::vector<std::string>& overrides,
                                     const std::vector<std::string>& own = {});
};

struct OwnedRoute {
  std::unique_ptr<Compressor> codec;
  Route route;
};

// What one rank needs to train, explain or evaluate. Members in the order of construction.
struct Assembly {
  std::unique_ptr<Task> task;
  GradientReducer::NamedTensors parameters;
  Sketches sketches;
  std::unique_ptr<FeedbackPolicy> feedback, no_feedback;
  std::vector<OwnedRoute> routes;  // dense first, then one a rule
  std::unique_ptr<Plan> plan;
  std::unique_ptr<Planner> planner;               // null: the plan stays
  std::vector<std::unique_ptr<Compressor>> menu;  // what the choices point to
  PlanChoices choices;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<std::unique_ptr<StateCodec>> codecs;
  std::vector<StateTreatment> treatments;  // of the optimizer's moments, by parameter
  Masters masters = Masters::kNone;        // of bf16 parameters
  std::unique_ptr<Schedule> schedule;
  std::unique_ptr<Strategy> strategy;
  std::vector<std::string> warnings;
};

StatusOr<std::unique_ptr<Task>> MakeTask(const LoadedConfig& loaded, int rank, int world_size,
                                         bool for_eval, at::Device device = at::kCPU);
// Of an assembly: plan, optimizer, schedule and strategy, for parameters of any origin. Only these
// merges are open to the plan; dense gradients are summed by `sums`. Returns what the plan was made
// from.
StatusOr<PlanOptions> AssembleMethod(const LoadedConfig& loaded,
                                     const std::vector<TensorSpec>& specs, int world_size,
                                     std::span<const Merge> merges, Assembly* assembly,
                                     const Exchange* sums = FindExchange(Merge::kSum));
// What an exchange is registered as.
std::string NameOf(const Exchange& exchange);
// Everything but communication. `exchanging`: how many send messages to each other, the ranks or
// their groups (0: the ranks); bytes and plan are computed for that. Parameters lie on `device`,
// and the plan keeps to what works there.
StatusOr<std::unique_ptr<Assembly>> Assemble(const LoadedConfig& loaded, int rank, int world_size,
                                             int exchanging = 0, at::Device device = at::kCPU);

}  // namespace tw
