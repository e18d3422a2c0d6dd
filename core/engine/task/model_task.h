#pragma once
// What our own tasks share: a model made by name, the precision of the forward pass, the loss.

#include "core/engine/task/module_task.h"
#include "core/nn/model/model.h"
#include "core/nn/precision.h"

namespace tw {

class ModelTask : public ModuleTask {
 public:
  StatusOr<EvalResult> Evaluate() override { return EvaluatePart(0, 1); }

 protected:
  ModelTask(std::shared_ptr<Model> model, const TaskOptions& options)
      : ModuleTask(model, options),
        model_(std::move(model)),
        precision_(*PrecisionNamed(options.precision)) {}

  // Scores in fp32. Inputs and labels below may be the host's, and are moved to the model then.
  at::Tensor Scores(const at::Tensor& input) const;
  // Mean cross entropy in nats; see Model::Loss.
  at::Tensor MeanLoss(const at::Tensor& input, const at::Tensor& labels) const;
  Precision precision() const { return precision_; }
  std::map<std::string, std::string> TiedNames() const override { return model_->TiedNames(); }

  std::shared_ptr<Model> model_;

 private:
  // For the forward pass.
  PrecisionScope Scope() const { return {precision_ == Precision::kBf16, options_.device.type()}; }

  Precision precision_;
};

// The model that [model] names (`fallback` when it names none) for such data, on options.device,
// with the numbers it would have on the host. ConfigError when that kind of model does not take it,
// naming those that do, and for a precision that is not known or that the model does not have.
StatusOr<std::shared_ptr<Model>> MakeModel(const TaskOptions& options, const char* fallback,
                                           const ModelInput& input);

}  // namespace tw
