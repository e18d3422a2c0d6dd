#include "core/engine/task/model_task.h"

#include <ATen/autocast_mode.h>

namespace tw {

PrecisionScope::PrecisionScope(bool bf16) : bf16_(bf16) {
  if (!bf16_) return;
  enabled_before_ = at::autocast::is_autocast_enabled(at::kCPU);
  dtype_before_ = at::autocast::get_autocast_dtype(at::kCPU);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  at::autocast::increment_nesting();
}

PrecisionScope::~PrecisionScope() {
  if (!bf16_) return;
  // The cache holds bf16 copies of the weights, which the optimizer is about to change.
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, enabled_before_);
  at::autocast::set_autocast_dtype(at::kCPU, dtype_before_);
}

at::Tensor ModelTask::Scores(const at::Tensor& input) const {
  const PrecisionScope precision(bf16_);
  return model_->Forward(input).to(at::kFloat);
}

StatusOr<std::shared_ptr<Model>> MakeModel(const TaskOptions& options, const char* fallback,
                                           const ModelInput& input) {
  if (options.precision != "fp32" && options.precision != "bf16") {
    return ConfigError("train.precision = \"" + options.precision +
                       "\" is not known; fp32 or bf16");
  }
  const auto& registry = Registry<ModelFactory>::Get();
  TW_ASSIGN_OR_RETURN(const auto* entry, registry.Select(options.model, fallback));
  TW_ASSIGN_OR_RETURN(const auto factory, entry->make(options.model));
  if (!factory->Takes(input.kind)) {
    std::string others;
    for (const std::string& name : registry.names()) {
      const auto other = registry.Find(name)->make(ConfigSection());
      if (other.ok() && (*other)->Takes(input.kind)) others += (others.empty() ? "" : ", ") + name;
    }
    return ConfigError("model.name = \"" + entry->name +
                       "\" does not take the data of this task; those that do: " + others);
  }
  return factory->Create(input, options.seed);
}

}  // namespace tw
