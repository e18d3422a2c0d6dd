#include "core/nn/model/gpt.h"

#include <cmath>

#include "core/api/parameter_roles.h"
#include "core/nn/init.h"
#include "core/nn/layers.h"
#include "core/nn/model/block_runner.h"

namespace tw {
namespace {

class GptBlock : public torch::nn::Module {
 public:
  GptBlock(int64_t width, int64_t heads) : heads_(heads) {
    ln1_ = register_module("ln1", std::make_shared<LayerNorm>(width));
    ln2_ = register_module("ln2", std::make_shared<LayerNorm>(width));
    qkv_ = register_module("qkv", std::make_shared<Linear>(width, 3 * width));
    proj_ = register_module("proj", std::make_shared<Linear>(width, width));
    fc_ = register_module("fc", std::make_shared<Linear>(width, 4 * width));
    out_ = register_module("out", std::make_shared<Linear>(4 * width, width));
    parameters_ = parameters();
    mlp_parameters_ = {ln2_->weight, ln2_->bias, fc_->weight, fc_->bias, out_->weight, out_->bias};
  }

  // The attention output keeps its input: attention has saved it anyway.
  void KeepInputs(LinearInputs& inputs) {
    for (const auto& layer : {qkv_, fc_, out_}) {
      layer->KeepInputAs(inputs.Make(layer->weight.size(1)));
      layer->PutLeaves(&parameters_);
      layer->PutLeaves(&mlp_parameters_);
    }
  }

  at::Tensor Forward(const at::Tensor& x, const BlockRunner& runner) const {  // [B, T, D]
    return runner.RunBlock([this, &runner](const at::Tensor& y) { return Run(y, runner); }, x,
                           parameters_);
  }

 private:
  at::Tensor Run(const at::Tensor& x, const BlockRunner& runner) const {
    const int64_t batch = x.size(0), tokens = x.size(1), width = x.size(2);
    const at::Tensor qkv = qkv_->Forward(ln1_->Forward(x))
                               .view({batch, tokens, 3, heads_, width / heads_})
                               .permute({2, 0, 3, 1, 4});  // [3, B, heads, T, D / heads]
    const at::Tensor mixed = at::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2],
                                                              /*attn_mask=*/{}, /*dropout_p=*/0.0,
                                                              /*is_causal=*/true)
                                 .transpose(1, 2)
                                 .reshape({batch, tokens, width});
    const at::Tensor h = x + proj_->Forward(mixed);
    const auto mlp = [this](const at::Tensor& y) {
      return out_->Forward(at::gelu(fc_->Forward(ln2_->Forward(y)), "tanh"));
    };
    return h + runner.RunMlp(mlp, h, mlp_parameters_);
  }

  int64_t heads_;
  std::shared_ptr<LayerNorm> ln1_, ln2_;
  std::shared_ptr<Linear> qkv_, proj_, fc_, out_;
  std::vector<at::Tensor> parameters_, mlp_parameters_;
};

class Gpt : public LanguageModel {
 public:
  Gpt(const GptConfig& options, const ModelInput& input, uint64_t seed,
      std::shared_ptr<const BlockRunner> runner)
      : LanguageModel(std::move(runner)) {
    tok_ = register_module("tok", std::make_shared<Embedding>(input.vocab, options.width));
    pos_ = register_module("pos", std::make_shared<Embedding>(input.context, options.width));
    torch::nn::ModuleList list;
    for (int64_t i = 0; i < options.layers; ++i) {
      blocks_.push_back(std::make_shared<GptBlock>(options.width, options.heads));
      list->push_back(blocks_.back());
    }
    register_module("blocks", list);
    lnf_ = register_module("lnf", std::make_shared<LayerNorm>(options.width));

    const double residual = 0.02 / std::sqrt(2.0 * static_cast<double>(options.layers));
    for (const auto& item : named_parameters()) {
      if (item.value().dim() != 2) continue;
      const bool onto_residual = item.key().find(".proj.") != std::string::npos ||
                                 item.key().find(".out.") != std::string::npos;
      InitNormal(seed, item.key(), onto_residual ? residual : 0.02, item.value());
    }
  }

  at::Tensor Hidden(const at::Tensor& ids) override {
    at::Tensor h = (tok_->Forward(ids) + pos_->weight.narrow(0, 0, ids.size(1))).to(stream_);
    for (const auto& block : blocks_) h = block->Forward(h, *runner_);
    return lnf_->Forward(h);
  }
  const at::Tensor& HeadWeight() const override { return tok_->weight; }
  Status KeepInputs(LinearInputs inputs) override {
    inputs_ = std::move(inputs);
    for (const auto& block : blocks_) block->KeepInputs(inputs_);
    return OkStatus();
  }
  std::map<std::string, std::string> TiedNames() const override {
    return {{"head.weight", "tok.weight"}};
  }

 private:
  std::shared_ptr<Embedding> tok_, pos_;
  std::vector<std::shared_ptr<GptBlock>> blocks_;
  std::shared_ptr<LayerNorm> lnf_;
};

bool TakesTokens(InputKind kind) { return kind == InputKind::kTokens; }

StatusOr<std::shared_ptr<Model>> Create(const GptConfig& config, const ModelInput& input,
                                        uint64_t seed, const MemoryConfig& memory) {
  return CreateGpt(config, input, seed, memory);
}

}  // namespace

StatusOr<std::shared_ptr<LanguageModel>> CreateGpt(const GptConfig& config, const ModelInput& input,
                                                   uint64_t seed, const MemoryConfig& memory) {
  if (config.width % config.heads != 0) {
    return ConfigError("model.width = " + std::to_string(config.width) +
                       " is not a multiple of model.heads = " + std::to_string(config.heads));
  }
  TW_ASSIGN_OR_RETURN(auto runner,
                      BlockRunner::Create(memory, {.layers = config.layers,
                                                   .width = config.width,
                                                   .heads = config.heads,
                                                   .hidden = 4 * config.width,
                                                   .vocab = input.vocab,
                                                   .matrix_numel = 12 * config.width * config.width,
                                                   .tied = true}));
  return std::shared_ptr<LanguageModel>(
      std::make_shared<Gpt>(config, input, seed, std::move(runner)));
}

namespace {

class GptRoles : public ParameterRoles {
 public:
  explicit GptRoles(const GptConfig& config) : heads_(config.heads) {}
  static StatusOr<std::unique_ptr<ParameterRoles>> Create(const GptConfig& config) {
    return std::make_unique<GptRoles>(config);
  }
  ParameterRole RoleOf(const TensorSpec& spec) const override {
    if (spec.name.ends_with(".qkv.weight")) {  // rows q | k | v
      return {{BlockKind::kHead, heads_}, {BlockKind::kHead, heads_}, {BlockKind::kRow}};
    }
    if (spec.name.ends_with("bias")) return {{BlockKind::kElement}};
    if (spec.shape.size() < 2 || spec.name == "pos.weight") return {{BlockKind::kWhole}};
    return {{BlockKind::kRow}};
  }

 private:
  int64_t heads_;
};

TW_REGISTER(ParameterRoles, gpt, 0, GptConfig, GptRoles::Create, "heads of q and k, rows, norms");

}  // namespace

TW_REGISTER_MODEL(gpt, GptConfig, TakesTokens, Create,
                  "GPT-2 style decoder, head tied to the token table");

}  // namespace tw
