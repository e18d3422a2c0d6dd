#include "core/engine/task/model_task.h"

#include "core/nn/layers.h"

namespace tw {

at::Tensor ModelTask::Scores(const at::Tensor& input) const {
  const PrecisionScope scope = Scope();
  return model_->Forward(input).to(at::kFloat);
}

at::Tensor ModelTask::MeanLoss(const at::Tensor& input, const at::Tensor& labels) const {
  const PrecisionScope scope = Scope();
  return model_->Loss(input, labels);
}

namespace {

// Weights of linear layers become bf16. What is summed over many rows or divided by stays fp32:
// token tables, biases, norms, convolutions.
Status NarrowWeights(const Model& model, const TaskOptions& options) {
  if (options.precision == "fp32") {
    return ConfigError(
        "train.weights = \"bf16\" needs train.precision = \"bf16\", or \"bf16_pure\"");
  }
  const ActivationCodec* codec = options.activations.get();
  if (codec && codec->keeps_input()) codec = nullptr;
  int64_t narrowed = 0;
  for (const auto& module : model.modules(/*include_self=*/false)) {
    if (const auto* linear = module->as<Linear>()) {
      const int64_t features = linear->weight.size(1);
      if (codec && codec->GradientColumns(features) < features) {
        return ConfigError("train.weights = \"bf16\": memory.activations = \"" +
                           options.memory.activations +
                           "\" adds updates to weights that it expands from sketches, a part at a "
                           "time, which needs fp32 ones: use int8, or train.weights = \"fp32\"");
      }
      linear->weight.set_data(linear->weight.to(at::kBFloat16));
      ++narrowed;
    }
  }
  if (narrowed == 0) {
    return ConfigError("train.weights = \"bf16\": this model has no linear layers");
  }
  return OkStatus();
}

}  // namespace

StatusOr<std::shared_ptr<Model>> MakeModel(const TaskOptions& options, const char* fallback,
                                           const ModelInput& input) {
  const std::optional<Precision> precision = PrecisionNamed(options.precision);
  if (!precision) {
    return ConfigError("train.precision = \"" + options.precision +
                       "\" is not known; fp32, bf16 or bf16_pure");
  }
  if (precision == Precision::kBf16Pure && !options.bf16_weights) {
    return ConfigError(
        "train.precision = \"bf16_pure\" multiplies by the weights as they are: write "
        "train.weights = \"bf16\", too");
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
  TW_ASSIGN_OR_RETURN(std::shared_ptr<Model> model,
                      factory->Create(input, options.seed, options.memory));
  if (precision == Precision::kBf16Pure) TW_RETURN_IF_ERROR(model->NarrowActivations());
  if (options.bf16_weights) TW_RETURN_IF_ERROR(NarrowWeights(*model, options));
  MoveModule(*model, options.device);  // before sketches are made, which lie where the weights do
  if (options.activations && !options.activations->keeps_input()) {
    TW_RETURN_IF_ERROR(
        model->KeepInputs(LinearInputs(options.activations, options.seed, options.device)));
  }
  return model;
}

}  // namespace tw
