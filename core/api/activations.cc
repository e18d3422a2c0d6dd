#include "core/api/activations.h"

#include "core/api/activation_codec.h"

namespace tw {
namespace {

// What memory.activations may be.
std::vector<std::string> ActivationNames() {
  std::vector<std::string> names = Registry<ActivationPolicy>::Get().names();
  for (const std::string& codec : Registry<ActivationCodec>::Get().names()) {
    if (std::find(names.begin(), names.end(), codec) == names.end()) names.push_back(codec);
  }
  return names;
}

}  // namespace

FieldList<MemoryConfig> MemoryConfig::Fields() {
  return FieldList<MemoryConfig>()
      .Text("activations", &MemoryConfig::activations, ActivationNames(),
            "what is kept for backward. checkpoint: of a block its input, it runs again; compact, "
            "int8: of a linear layer's input a projection, or 8 bits a number")
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
  const bool codec = Registry<ActivationCodec>::Get().Find(config.activations) != nullptr;
  const auto* entry = Registry<ActivationPolicy>::Get().Find(codec ? "none" : config.activations);
  if (!entry) {
    return ConfigError("memory.activations = \"" + config.activations + "\" is not known" +
                       KnownWords(config.activations, ActivationNames()));
  }
  TW_ASSIGN_OR_RETURN(auto policy, entry->make(ConfigSection{}));
  return std::shared_ptr<const ActivationPolicy>(std::move(policy));
}

}  // namespace tw
