#pragma once
// Llama: RMSNorm, SwiGLU, rotary positions, grouped-query attention (arXiv 2302.13971, 2104.09864,
// 2305.13245), with the parameter names and the arithmetic of Hugging Face's LlamaForCausalLM, so
// that its safetensors files load as they are.

#include <memory>

#include "core/nn/model/model.h"

namespace tw {

struct LlamaConfig {
  int64_t layers = 6;
  int64_t width = 256;
  int64_t heads = 8;
  int64_t kv_heads = 0;
  int64_t hidden = 0;
  double rope_theta = 10000;
  double rms_eps = 1e-6;
  bool tie = false;

  static FieldList<LlamaConfig> Fields() {
    return FieldList<LlamaConfig>()
        .Int("layers", &LlamaConfig::layers, {1, 1024}, "transformer blocks")
        .Int("width", &LlamaConfig::width, {1, 1 << 20}, "features a token; a multiple of heads")
        .Int("heads", &LlamaConfig::heads, {1, 1024}, "attention heads; width / heads must be even")
        .Int("kv_heads", &LlamaConfig::kv_heads, {0, 1024},
             "heads of keys and values, a divisor of heads; 0: heads")
        .Int("hidden", &LlamaConfig::hidden, {0, 1 << 22},
             "features inside the MLP; 0: 3.5 x width")
        .Real("rope_theta", &LlamaConfig::rope_theta, {1, 1e9, kOpenLow},
              "base of the rotary wave lengths")
        .Real("rms_eps", &LlamaConfig::rms_eps, {0, 1, kOpenBoth},
              "added to the mean square in RMSNorm")
        .Bool("tie", &LlamaConfig::tie, "lm_head shares the weights of embed_tokens");
  }
};

// Parameters, in the order of registration (D = width, H = hidden, K = kv_heads * D / heads):
//   model.embed_tokens.weight [vocab, D],
//   model.layers.N.{self_attn.{q_proj [D, D], k_proj [K, D], v_proj [K, D], o_proj [D, D]},
//                   mlp.{gate_proj [H, D], up_proj [H, D], down_proj [D, H]},
//                   input_layernorm [D], post_attention_layernorm [D]}.weight,
//   model.norm.weight [D], lm_head.weight [vocab, D] unless tied
// Initial weights: matrices N(0, 0.02), norms 1. ConfigError when the sizes do not divide each
// other.
StatusOr<std::shared_ptr<LanguageModel>> CreateLlama(const LlamaConfig& config,
                                                     const ModelInput& input, uint64_t seed,
                                                     const MemoryConfig& memory = {});

}  // namespace tw
