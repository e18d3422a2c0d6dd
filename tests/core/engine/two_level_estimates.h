#pragma once
// Ranks in groups through TwoLevel, for tests: over threads, or over whatever gives them a
// communicator and, if they are not the host's, memory for their gradients.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/device.h"
#include "core/engine/lane.h"
#include "core/engine/two_level.h"
#include "tests/comm/exchange_runner.h"
#include "tests/comm/thread_group.h"
#include "tests/core/engine/engine_parts.h"

namespace tw {

inline std::vector<TensorSpec> TwoLevelSpecs() {
  return {TestSpec(0, {300}), TestSpec(1, {5, 40}), TestSpec(2, {3})};
}

struct TwoLevelCase {
  std::string compressor = "none", feedback = "none";
  std::vector<int> group_of;
  bool one_bucket = true;  // false: one a parameter, two of them on the lane at once
};

using TwoLevelGradients = std::vector<std::vector<float>>;

// One rank's estimates after `steps` steps, over which its gradients vary. `device` is null, or
// what its communicator carries.
inline TwoLevelGradients TwoLevelEstimates(const TwoLevelCase& setup, uint64_t steps,
                                           Communicator& comm, DeviceQueue* device = nullptr) {
  RouteMaker routes;
  PlanOptions options = routes.Options(CountGroups(setup.group_of));
  if (comm.on_device()) options.exchanges.pop_back();  // the sparse one
  PlanRule rule;
  rule.route = routes.Make(setup.compressor, setup.feedback);
  rule.min_numel = 10;
  options.rules = {rule};
  const auto plan = Plan::Build(TwoLevelSpecs(), options);
  TW_CHECK_OK(plan);
  DeviceMemory* const memory = device ? &device->memory() : nullptr;
  const DeviceScope scope(device);
  StateBag state(memory);
  PipelineOptions pipeline{5, &state};
  pipeline.memory = memory;
  auto two_level = TwoLevel::Create(&*plan, &comm, setup.group_of, pipeline);
  TW_CHECK_OK(two_level);
  Lane lane(2);
  lane.UseDevice(device);
  const int parameters[] = {0, 1, 2};
  TwoLevelGradients grads;
  for (uint64_t step = 0; step < steps; ++step) {
    grads.clear();
    std::vector<TestMemory> held;
    std::vector<TensorView> views;
    for (const TensorSpec& spec : TwoLevelSpecs()) {
      grads.push_back(TestMessage(comm.rank(), spec));
      for (float& x : grads.back()) x += 0.25f * static_cast<float>(step);
      const size_t bytes = 4 * grads.back().size();
      PutBytes(held.emplace_back(memory, bytes).data(), grads.back().data(), bytes);
      views.push_back({held.back().data(), DType::kF32, spec.numel()});
    }
    if (device) TW_CHECK_OK(device->Wait());
    if (setup.one_bucket) {
      lane.Launch([&] { return (*two_level)->Start(0, step, parameters, views); });
    }
    for (size_t p = 0; p < views.size() && !setup.one_bucket; ++p) {
      lane.Launch([&, p] {
        return (*two_level)->Start(static_cast<int>(p), step, {&parameters[p], 1}, {&views[p], 1});
      });
    }
    TW_CHECK_OK(lane.Wait());
    for (size_t p = 0; p < views.size(); ++p) {
      GetBytes(grads[p].data(), views[p].data, 4 * grads[p].size());
    }
  }
  return grads;
}

// Those of all ranks, over threads.
inline std::vector<TwoLevelGradients> TwoLevelEstimates(const TwoLevelCase& setup, uint64_t steps) {
  std::vector<TwoLevelGradients> out(setup.group_of.size());
  RunRanks(static_cast<int>(out.size()), [&](Communicator& comm) {
    out[static_cast<size_t>(comm.rank())] = TwoLevelEstimates(setup, steps, comm);
  });
  return out;
}

// What differs between kinds of codecs and feedbacks.
inline std::vector<TwoLevelCase> TwoLevelCases(const std::vector<int>& group_of) {
  std::vector<TwoLevelCase> out;
  for (const auto& [compressor, feedback] :
       std::vector<std::pair<std::string, std::string>>{{"none", "none"},
                                                        {"topk", "ef14"},
                                                        {"blockquant", "ef14"},
                                                        {"natural", "diana"},
                                                        {"bf16", "ef21m"},
                                                        {"topk", "dgc"}}) {
    out.push_back({compressor, feedback, group_of});
  }
  return out;
}

}  // namespace tw
