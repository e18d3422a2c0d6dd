#pragma once
// What the tasks share: a model made by name, its parameters, its weights in files, and the
// precision of the forward pass.

#include "core/api/task.h"
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

class ModelTask : public Task {
 public:
  std::vector<std::pair<std::string, at::Tensor>> parameters() override;
  StatusOr<EvalResult> Evaluate() override { return EvaluatePart(0, 1); }
  Status LoadWeights(const std::string& path) override;
  Status SaveWeights(const std::string& path) const override;

 protected:
  ModelTask(std::shared_ptr<Model> model, const TaskOptions& options)
      : model_(std::move(model)), options_(options), bf16_(options.precision == "bf16") {}

  // Scores in fp32.
  at::Tensor Scores(const at::Tensor& input) const;

  std::shared_ptr<Model> model_;
  TaskOptions options_;

 private:
  bool bf16_;
};

// The model that [model] names (`fallback` when it names none) for such data. ConfigError when that
// kind of model does not take it, naming those that do, and when precision is neither fp32 nor
// bf16.
StatusOr<std::shared_ptr<Model>> MakeModel(const TaskOptions& options, const char* fallback,
                                           const ModelInput& input);

}  // namespace tw
