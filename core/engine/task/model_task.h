#pragma once
// What our own tasks share: a model made by name and the precision of the forward pass.

#include "core/engine/task/module_task.h"
#include "core/nn/model/model.h"

namespace tw {

// While it lives, matrix products of the forward pass run in bfloat16 if `precision` is "bf16"
// (autocast); nothing changes otherwise. Parameters, gradients and the loss stay fp32. Backward
// needs none of it.
class PrecisionScope {
 public:
  explicit PrecisionScope(bool bf16);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  bool bf16_;
  bool enabled_before_ = false;
  at::ScalarType dtype_before_ = at::kFloat;
};

class ModelTask : public ModuleTask {
 public:
  StatusOr<EvalResult> Evaluate() override { return EvaluatePart(0, 1); }

 protected:
  ModelTask(std::shared_ptr<Model> model, const TaskOptions& options)
      : ModuleTask(model, options), model_(std::move(model)), bf16_(options.precision == "bf16") {}

  // Scores in fp32.
  at::Tensor Scores(const at::Tensor& input) const;
  std::map<std::string, std::string> TiedNames() const override { return model_->TiedNames(); }

  std::shared_ptr<Model> model_;

 private:
  bool bf16_;
};

// The model that [model] names (`fallback` when it names none) for such data. ConfigError when that
// kind of model does not take it, naming those that do, and when precision is neither fp32 nor
// bf16.
StatusOr<std::shared_ptr<Model>> MakeModel(const TaskOptions& options, const char* fallback,
                                           const ModelInput& input);

}  // namespace tw
