#pragma once
// What every model of ours is: a torch::nn::Module whose parameter names are those a PyTorch
// state_dict would have, made by a registered factory.
//
//   TW_ASSIGN_OR_RETURN(auto factory, Registry<ModelFactory>::Get().Make(section, "gpt"));
//   TW_ASSIGN_OR_RETURN(std::shared_ptr<Model> model, factory->Create({.kind = InputKind::kTokens,
//   ...}, seed));
//
// A model is not thread safe; two models share nothing.

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/api/activations.h"
#include "core/nn/linear_input.h"
#include "core/nn/model/model_factory.h"
#include "core/nn/precision.h"
#include "core/nn/torch.h"

namespace tw {

class BlockRunner;

class Model : public torch::nn::Module {
 public:
  // Scores: token ids int64 [B, T] -> [B, T, vocab]; images [B, C, H, W] or rows [B, F] -> [B,
  // classes].
  virtual at::Tensor Forward(const at::Tensor& input) = 0;

  // Mean cross entropy of the scores in nats, fp32 []; labels int64, of the shape of the scores
  // without their last dimension, -100 where there is none; where the model is, or on the host.
  virtual at::Tensor Loss(const at::Tensor& input, const at::Tensor& labels);

  // Of Loss and its backward on such a batch; nothing where the model has no formula.
  virtual std::optional<ActivationEstimate> EstimateActivations(int64_t /*batch*/,
                                                                int64_t /*tokens*/,
                                                                Precision) const {
    return std::nullopt;
  }
  // Linear layers keep for backward what `inputs` pack. Before the first Forward. ConfigError from
  // models that have no such layers.
  virtual Status KeepInputs(LinearInputs inputs) {
    return ConfigError("only gpt and llama know memory.activations other than none");
  }
  // From the embedding on activations are bf16. Before the first Forward; weights of linear layers
  // are bf16 then. ConfigError from models that have no such form.
  virtual Status NarrowActivations() {
    return ConfigError("only gpt and llama know train.precision = \"bf16_pure\"");
  }
  // Before the forward passes of a step of the optimizer, in training.
  void BeginStep(uint64_t step) { inputs_.BeginStep(step); }

  // Names another program may store for a tensor this model registers once, e.g. head.weight ->
  // tok.weight.
  virtual std::map<std::string, std::string> TiedNames() const { return {}; }

 protected:
  LinearInputs inputs_;
};

// Separates the trunk from the head, so that head and loss can run in pieces of the sequence.
class LanguageModel : public Model {
 public:
  // Token ids int64 [B, T] -> what the head multiplies, [B, T, width]. T at most the context the
  // model was built for.
  virtual at::Tensor Hidden(const at::Tensor& ids) = 0;
  virtual const at::Tensor& HeadWeight() const = 0;  // [vocab, width], no bias

  at::Tensor Forward(const at::Tensor& ids) override;
  at::Tensor Loss(const at::Tensor& ids, const at::Tensor& labels) override;
  std::optional<ActivationEstimate> EstimateActivations(int64_t batch, int64_t tokens,
                                                        Precision precision) const override;
  Status NarrowActivations() override {
    stream_ = at::kBFloat16;
    return OkStatus();
  }

 protected:
  explicit LanguageModel(std::shared_ptr<const BlockRunner> runner) : runner_(std::move(runner)) {}
  const std::shared_ptr<const BlockRunner> runner_;
  at::ScalarType stream_ = at::kFloat;  // what blocks take and return, but under autocast
};

// A ConfigError that names the first key of `memory` that is not at its default.
Status RefuseMemory(const MemoryConfig& memory);

// Registers under `name` the factory that keeps a Config and calls create(config, input, seed,
// memory), or create(config, input, seed) for a model that has no use for [memory] and refuses it.
template <class Config>
class ModelFactoryOf : public ModelFactory {
 public:
  using CreateFn = StatusOr<std::shared_ptr<Model>> (*)(const Config&, const ModelInput&,
                                                        uint64_t seed, const MemoryConfig&);
  using PlainCreateFn = StatusOr<std::shared_ptr<Model>> (*)(const Config&, const ModelInput&,
                                                             uint64_t seed);
  using TakesFn = bool (*)(InputKind);

  ModelFactoryOf(const Config& config, TakesFn takes, CreateFn create)
      : config_(config), takes_(takes), create_(create) {}
  ModelFactoryOf(const Config& config, TakesFn takes, PlainCreateFn create)
      : config_(config), takes_(takes), create_plain_(create) {}
  bool Takes(InputKind kind) const override { return takes_(kind); }
  StatusOr<std::shared_ptr<Model>> Create(const ModelInput& input, uint64_t seed,
                                          const MemoryConfig& memory) const override {
    if (create_) return create_(config_, input, seed, memory);
    TW_RETURN_IF_ERROR(RefuseMemory(memory));
    return create_plain_(config_, input, seed);
  }

 private:
  Config config_;
  TakesFn takes_;
  CreateFn create_ = nullptr;
  PlainCreateFn create_plain_ = nullptr;
};

}  // namespace tw

// TW_REGISTER_MODEL(gpt, GptConfig, TakesTokens, CreateGpt, "summary");
#define TW_REGISTER_MODEL(name, Config, takes, create, summary)                         \
  TW_REGISTER(                                                                          \
      ModelFactory, name, 0, Config,                                                    \
      [](const Config& config) -> ::tw::StatusOr<std::unique_ptr<::tw::ModelFactory>> { \
        return std::unique_ptr<::tw::ModelFactory>(                                     \
            std::make_unique<::tw::ModelFactoryOf<Config>>(config, takes, create));     \
      },                                                                                \
      summary)
