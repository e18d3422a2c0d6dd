#include "core/nn/model/llama.h"

#include "core/api/parameter_roles.h"
#include "core/nn/init.h"
#include "core/nn/layers.h"
#include "core/nn/model/block_runner.h"

namespace tw {
namespace {

// Rotary tables [context, head_dim]; the second half of a row repeats the first, as "rotate half"
// wants it. Buffers of the trunk: they go where the model goes. Built in fp32 like Hugging Face's,
// whose rounding a loaded checkpoint was trained with.
struct Rotary {
  at::Tensor cos, sin;

  Rotary(int64_t context, int64_t head_dim, double theta) {
    const at::Tensor even =
        torch::arange(0, head_dim, 2, torch::kFloat) / static_cast<double>(head_dim);
    const at::Tensor wave = 1.0 / torch::pow(theta, even);
    const at::Tensor angle = torch::outer(torch::arange(context, torch::kFloat), wave);
    const at::Tensor both = torch::cat({angle, angle}, -1);
    cos = both.cos();
    sin = both.sin();
  }

  at::Tensor Turn(const at::Tensor& x) const {  // [B, heads, T, head_dim]
    const int64_t tokens = x.size(2);
    const auto halves = x.chunk(2, -1);
    const at::Tensor turned = torch::cat({-halves[1], halves[0]}, -1);
    const auto table = [&](const at::Tensor& t) { return t.narrow(0, 0, tokens).to(x.options()); };
    return x * table(cos) + turned * table(sin);
  }
};

class LlamaAttention : public torch::nn::Module {
 public:
  LlamaAttention(const LlamaConfig& c)
      : heads_(c.heads), kv_heads_(c.kv_heads), head_dim_(c.width / c.heads) {
    q_ = register_module("q_proj", std::make_shared<Linear>(c.width, c.width, false));
    k_ = register_module("k_proj", std::make_shared<Linear>(c.width, kv_heads_ * head_dim_, false));
    v_ = register_module("v_proj", std::make_shared<Linear>(c.width, kv_heads_ * head_dim_, false));
    o_ = register_module("o_proj", std::make_shared<Linear>(c.width, c.width, false));
  }

  // The output projection keeps its input: attention has saved it anyway.
  void KeepInputs(LinearInputs& inputs, std::vector<at::Tensor>* parameters) {
    input_ = inputs.Make(q_->weight.size(1));
    for (const auto& layer : {q_, k_, v_}) {
      layer->KeepInputAs(input_);
      layer->PutLeaves(parameters);
    }
  }

  at::Tensor Forward(const at::Tensor& x, const Rotary& rotary) const {  // [B, T, D]
    const int64_t batch = x.size(0), tokens = x.size(1);
    const auto split = [&](const at::Tensor& y, int64_t heads) {
      return y.view({batch, tokens, heads, head_dim_}).transpose(1, 2);
    };
    const PackedInput in = PackInput(input_, x);
    const at::Tensor q = rotary.Turn(split(q_->Forward(in), heads_));
    const at::Tensor k = Share(rotary.Turn(split(k_->Forward(in), kv_heads_)));
    const at::Tensor v = Share(split(v_->Forward(in), kv_heads_));
    const at::Tensor mixed =
        at::scaled_dot_product_attention(q, k, v, /*attn_mask=*/{}, /*dropout_p=*/0.0,
                                         /*is_causal=*/true);
    return o_->Forward(mixed.transpose(1, 2).reshape({batch, tokens, heads_ * head_dim_}));
  }

 private:
  // [B, kv_heads, T, d] -> [B, heads, T, d]: each key head serves heads / kv_heads neighbouring
  // query heads.
  at::Tensor Share(const at::Tensor& x) const {
    if (kv_heads_ == heads_) return x;
    const int64_t times = heads_ / kv_heads_;
    return x.unsqueeze(2)
        .expand({x.size(0), kv_heads_, times, x.size(2), head_dim_})
        .reshape({x.size(0), heads_, x.size(2), head_dim_});
  }

  int64_t heads_, kv_heads_, head_dim_;
  std::shared_ptr<Linear> q_, k_, v_, o_;
  std::shared_ptr<const LinearInput> input_;  // of q, k and v
};

class LlamaMlp : public torch::nn::Module {
 public:
  LlamaMlp(const LlamaConfig& c) {
    gate_ = register_module("gate_proj", std::make_shared<Linear>(c.width, c.hidden, false));
    up_ = register_module("up_proj", std::make_shared<Linear>(c.width, c.hidden, false));
    down_ = register_module("down_proj", std::make_shared<Linear>(c.hidden, c.width, false));
  }
  void KeepInputs(LinearInputs& inputs, std::vector<at::Tensor>* parameters) {
    input_ = inputs.Make(gate_->weight.size(1));
    for (const auto& layer : {gate_, up_}) layer->KeepInputAs(input_);
    down_->KeepInputAs(inputs.Make(down_->weight.size(1)));
    PutLeaves(parameters);
  }
  void PutLeaves(std::vector<at::Tensor>* parameters) const {
    for (const auto& layer : {gate_, up_, down_}) layer->PutLeaves(parameters);
  }
  at::Tensor Forward(const at::Tensor& x) const {
    const PackedInput in = PackInput(input_, x);
    return down_->Forward(at::silu(gate_->Forward(in)) * up_->Forward(in));
  }

 private:
  std::shared_ptr<Linear> gate_, up_, down_;
  std::shared_ptr<const LinearInput> input_;  // of gate and up
};

class LlamaLayer : public torch::nn::Module {
 public:
  LlamaLayer(const LlamaConfig& c) {
    attention_ = register_module("self_attn", std::make_shared<LlamaAttention>(c));
    mlp_ = register_module("mlp", std::make_shared<LlamaMlp>(c));
    norm1_ = register_module("input_layernorm", std::make_shared<RmsNorm>(c.width, c.rms_eps));
    norm2_ =
        register_module("post_attention_layernorm", std::make_shared<RmsNorm>(c.width, c.rms_eps));
    parameters_ = parameters();
    mlp_parameters_ = mlp_->parameters();
    mlp_parameters_.push_back(norm2_->weight);
  }
  void KeepInputs(LinearInputs& inputs) {
    attention_->KeepInputs(inputs, &parameters_);
    mlp_->KeepInputs(inputs, &parameters_);
    mlp_->PutLeaves(&mlp_parameters_);
  }
  at::Tensor Forward(const at::Tensor& x, const Rotary& rotary, const BlockRunner& runner) const {
    const auto body = [this, &rotary, &runner](const at::Tensor& y) {
      return Run(y, rotary, runner);
    };
    return runner.RunBlock(body, x, parameters_);
  }

 private:
  at::Tensor Run(const at::Tensor& x, const Rotary& rotary, const BlockRunner& runner) const {
    const at::Tensor h = x + attention_->Forward(norm1_->Forward(x), rotary);
    const auto mlp = [this](const at::Tensor& y) { return mlp_->Forward(norm2_->Forward(y)); };
    return h + runner.RunMlp(mlp, h, mlp_parameters_);
  }

  std::shared_ptr<LlamaAttention> attention_;
  std::shared_ptr<LlamaMlp> mlp_;
  std::shared_ptr<RmsNorm> norm1_, norm2_;
  std::vector<at::Tensor> parameters_, mlp_parameters_;
};

// What the names call "model": everything but the head.
class LlamaTrunk : public torch::nn::Module {
 public:
  LlamaTrunk(const LlamaConfig& c, const ModelInput& input)
      : rotary_(input.context, c.width / c.heads, c.rope_theta) {
    embed = register_module("embed_tokens", std::make_shared<Embedding>(input.vocab, c.width));
    torch::nn::ModuleList list;
    for (int64_t i = 0; i < c.layers; ++i) {
      layers_.push_back(std::make_shared<LlamaLayer>(c));
      list->push_back(layers_.back());
    }
    register_module("layers", list);
    norm_ = register_module("norm", std::make_shared<RmsNorm>(c.width, c.rms_eps));
    register_buffer("rotary_cos", rotary_.cos);
    register_buffer("rotary_sin", rotary_.sin);
  }
  void KeepInputs(LinearInputs& inputs) {
    for (const auto& layer : layers_) layer->KeepInputs(inputs);
  }
  at::Tensor Forward(const at::Tensor& ids, at::ScalarType stream,
                     const BlockRunner& runner) const {
    at::Tensor h = embed->Forward(ids).to(stream);
    for (const auto& layer : layers_) h = layer->Forward(h, rotary_, runner);
    return norm_->Forward(h);
  }

  std::shared_ptr<Embedding> embed;

 private:
  Rotary rotary_;
  std::vector<std::shared_ptr<LlamaLayer>> layers_;
  std::shared_ptr<RmsNorm> norm_;
};

class Llama : public LanguageModel {
 public:
  Llama(const LlamaConfig& c, const ModelInput& input, uint64_t seed,
        std::shared_ptr<const BlockRunner> runner)
      : LanguageModel(std::move(runner)) {
    trunk_ = register_module("model", std::make_shared<LlamaTrunk>(c, input));
    if (!c.tie)
      head_ = register_module("lm_head", std::make_shared<Linear>(c.width, input.vocab, false));
    for (const auto& item : named_parameters()) {
      if (item.value().dim() == 2) InitNormal(seed, item.key(), 0.02, item.value());
    }
  }

  at::Tensor Hidden(const at::Tensor& ids) override {
    return trunk_->Forward(ids, stream_, *runner_);
  }
  Status KeepInputs(LinearInputs inputs) override {
    inputs_ = std::move(inputs);
    trunk_->KeepInputs(inputs_);
    return OkStatus();
  }
  const at::Tensor& HeadWeight() const override {
    return head_ ? head_->weight : trunk_->embed->weight;
  }
  std::map<std::string, std::string> TiedNames() const override {
    if (head_) return {};
    return {{"lm_head.weight", "model.embed_tokens.weight"}};
  }

 private:
  std::shared_ptr<LlamaTrunk> trunk_;
  std::shared_ptr<Linear> head_;  // null when tied
};

bool TakesTokens(InputKind kind) { return kind == InputKind::kTokens; }

StatusOr<std::shared_ptr<Model>> Create(const LlamaConfig& config, const ModelInput& input,
                                        uint64_t seed, const MemoryConfig& memory) {
  return CreateLlama(config, input, seed, memory);
}

}  // namespace

StatusOr<std::shared_ptr<LanguageModel>> CreateLlama(const LlamaConfig& config,
                                                     const ModelInput& input, uint64_t seed,
                                                     const MemoryConfig& memory) {
  LlamaConfig c = config;
  if (c.kv_heads == 0) c.kv_heads = c.heads;
  if (c.hidden == 0) c.hidden = (7 * c.width + 1) / 2;
  if (c.width % (2 * c.heads) != 0) {
    return ConfigError("model.width = " + std::to_string(c.width) +
                       " is not a multiple of 2 x model.heads = " + std::to_string(2 * c.heads) +
                       " (rotary positions turn pairs)");
  }
  if (c.heads % c.kv_heads != 0) {
    return ConfigError("model.heads = " + std::to_string(c.heads) +
                       " is not a multiple of model.kv_heads = " + std::to_string(c.kv_heads));
  }
  const int64_t matrices =
      c.width * (2 * c.width + 2 * c.kv_heads * (c.width / c.heads) + 3 * c.hidden);
  TW_ASSIGN_OR_RETURN(auto runner, BlockRunner::Create(memory, {.layers = c.layers,
                                                                .width = c.width,
                                                                .heads = c.heads,
                                                                .hidden = c.hidden,
                                                                .vocab = input.vocab,
                                                                .norm_kept = 2,
                                                                .attention_readers = 3,
                                                                .mlp_readers = 2,
                                                                .mlp_matrices = 3,
                                                                .mlp_kept = 4,
                                                                .mlp_temporaries = 2,
                                                                .matrix_numel = matrices,
                                                                .tied = c.tie}));
  return std::shared_ptr<LanguageModel>(std::make_shared<Llama>(c, input, seed, std::move(runner)));
}

namespace {

class LlamaRoles : public ParameterRoles {
 public:
  explicit LlamaRoles(const LlamaConfig& config)
      : heads_(config.heads), kv_heads_(config.kv_heads ? config.kv_heads : config.heads) {}
  static StatusOr<std::unique_ptr<ParameterRoles>> Create(const LlamaConfig& config) {
    return std::make_unique<LlamaRoles>(config);
  }
  ParameterRole RoleOf(const TensorSpec& spec) const override {
    if (spec.name.ends_with(".q_proj.weight")) return {{BlockKind::kHead, heads_}};
    if (spec.name.ends_with(".k_proj.weight")) return {{BlockKind::kHead, kv_heads_}};
    if (spec.shape.size() < 2) return {{BlockKind::kWhole}};
    return {{BlockKind::kRow}};
  }

 private:
  int64_t heads_, kv_heads_;
};

TW_REGISTER(ParameterRoles, llama, 0, LlamaConfig, LlamaRoles::Create,
            "heads of q and k, rows, norms");

}  // namespace

TW_REGISTER_MODEL(llama, LlamaConfig, TakesTokens, Create,
                  "Llama decoder, RMSNorm, SwiGLU, rotary positions, grouped-query attention");

}  // namespace tw
