#pragma once
// GPT-2 style decoder: pre-LN, learned positions, tanh GELU, head tied to the token table.

#include <memory>

#include "core/nn/model/model.h"

namespace tw {

struct GptConfig {
  int64_t layers = 6;
  int64_t width = 256;
  int64_t heads = 8;

  static FieldList<GptConfig> Fields() {
    return FieldList<GptConfig>()
        .Int("layers", &GptConfig::layers, {1, 1024}, "transformer blocks")
        .Int("width", &GptConfig::width, {1, 1 << 20}, "features a token; a multiple of heads")
        .Int("heads", &GptConfig::heads, {1, 1024}, "attention heads");
  }
};

// Parameters, in the order of registration (D = width):
//   tok.weight [vocab, D], pos.weight [context, D],
//   blocks.N.{ln1.{weight,bias} [D], ln2.{weight,bias} [D], qkv.weight [3D, D], qkv.bias [3D],
//   proj.weight [D, D],
//             proj.bias [D], fc.weight [4D, D], fc.bias [4D], out.weight [D, 4D], out.bias [D]},
//   lnf.{weight,bias} [D]
// Rows of qkv are ordered (q|k|v, head, D / heads). Initial weights: N(0, 0.02), those of proj and
// out divided by sqrt(2 layers), biases 0, norms 1. ConfigError when width is not a multiple of
// heads.
StatusOr<std::shared_ptr<LanguageModel>> CreateGpt(const GptConfig& config, const ModelInput& input,
                                                   uint64_t seed, const MemoryConfig& memory = {});

}  // namespace tw
