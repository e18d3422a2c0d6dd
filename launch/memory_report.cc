#include "launch/memory_report.h"

#include "core/engine/update.h"

namespace tw {

MemoryReport PredictMemory(const Assembly& a) {
  MemoryReport report;
  for (const ParameterPlan& p : a.plan->parameters()) {
    const int64_t n = p.spec.numel();
    report.gradients += n * DTypeBytes(p.spec.dtype);
    report.optimizer +=
        a.optimizer->StateBytes(p.spec, a.treatments[p.spec.id]) + MasterBytes(p.spec, a.masters);
    report.feedback += p.route.policy->traits().state_floats * n * 4;
    if (p.route.hop_feedback && p.route.exchange->merge() == Merge::kReencode) {
      report.feedback += n * 4;
    }
    report.strategy += a.strategy->StateBytes(p.spec);
  }
  for (const auto& [name, parameter] : a.parameters) {
    report.parameters += static_cast<int64_t>(parameter.nbytes());
  }
  if (auto estimate = a.task->EstimateActivations()) {
    report.activations = estimate->peak;
    report.layers = std::move(estimate->layers);
  }
  return report;
}

nlohmann::ordered_json ToJson(const MemoryReport& r) {
  nlohmann::ordered_json j = {{"parameters", r.parameters},
                              {"gradients", r.gradients},
                              {"optimizer", r.optimizer},
                              {"feedback", r.feedback},
                              {"strategy", r.strategy}};
  if (!r.activations) return j;
  j["activations"] = *r.activations;
  if (!r.layers.empty()) {
    j["layers"] = nlohmann::ordered_json::array();
    for (const auto& layer : r.layers) {
      j["layers"].push_back({{"name", layer.name}, {"bytes", layer.bytes}});
    }
  }
  j["peak"] = *r.peak();
  return j;
}

}  // namespace tw
