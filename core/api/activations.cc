#include "core/api/activations.h"

namespace tw {

FieldList<MemoryConfig> MemoryConfig::Fields() {
  return FieldList<MemoryConfig>()
      .Text("activations", &MemoryConfig::activations, Registry<ActivationPolicy>::Get().names(),
            "what a block keeps for backward; checkpoint: its input only, and runs again")
      .Real("compact_rank", &MemoryConfig::compact_rank, {0, 1, kOpenLow},
            "rank fraction of activations = compact, which this version does not have")
      .Int("mlp_chunks", &MemoryConfig::mlp_chunks, {0, 1 << 20},
           "pieces of the sequence the MLPs run in, again in backward; 1: whole; 0: chosen from "
           "the sizes")
      .Int("head_chunks", &MemoryConfig::head_chunks, {0, 1 << 20},
           "pieces of the sequence that head and loss run in; 1: whole; 0: chosen from the sizes")
      .Text("head_form", &MemoryConfig::head_form, {"fused", "recompute"},
            "of a head in pieces. fused: gradients are computed with the loss; recompute: scores "
            "again in backward, in blocks of the vocabulary, which needs least");
}

StatusOr<std::shared_ptr<const ActivationPolicy>> MakeActivationPolicy(const MemoryConfig& config) {
  const auto* entry = Registry<ActivationPolicy>::Get().Find(config.activations);
  if (!entry) {
    return ConfigError("memory.activations = \"" + config.activations + "\" is not known" +
                       KnownWords(config.activations, Registry<ActivationPolicy>::Get().names()));
  }
  TW_ASSIGN_OR_RETURN(auto policy, entry->make(ConfigSection{}));
  return std::shared_ptr<const ActivationPolicy>(std::move(policy));
}

}  // namespace tw
