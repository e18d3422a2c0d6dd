#include "core/api/activation_codec.h"
#include "core/nn/head_loss.h"
#include "core/nn/model/block_runner.h"
#include "core/nn/model/model.h"
#include "core/nn/to_device.h"

namespace tw {

at::Tensor Model::Loss(const at::Tensor& input, const at::Tensor& labels) {
  const at::Tensor scores = Forward(input).to(at::kFloat);
  return at::cross_entropy_loss(scores.flatten(0, -2), ToDevice(labels.flatten(), scores.device()));
}

at::Tensor LanguageModel::Forward(const at::Tensor& ids) {
  const at::Tensor& weight = HeadWeight();
  return at::linear(Hidden(ids), stream_ == at::kFloat ? weight : weight.to(stream_));
}

at::Tensor LanguageModel::Loss(const at::Tensor& ids, const at::Tensor& labels) {
  const int64_t pieces = runner_->HeadTiles(ids.numel());
  if (pieces == 1) return Model::Loss(ids, labels);
  return HeadLoss(Hidden(ids).flatten(0, 1), HeadWeight(), labels.flatten(),
                  {.chunks = pieces, .recompute = runner_->memory().head_form == "recompute"});
}

std::optional<ActivationEstimate> LanguageModel::EstimateActivations(int64_t batch, int64_t tokens,
                                                                     Precision precision) const {
  // What a codec keeps of the layers' inputs no formula here knows.
  const auto* entry = Registry<ActivationCodec>::Get().Find(runner_->memory().activations);
  if (entry) {
    const auto codec = entry->make(ConfigSection{});
    if (!codec.ok() || !(*codec)->keeps_input()) return std::nullopt;
  }
  return runner_->Estimate(batch * tokens, precision);
}

Status RefuseMemory(const MemoryConfig& memory) {
  const auto asked = DumpFields(memory), defaults = DumpFields(MemoryConfig{});
  for (size_t i = 0; i < asked.size(); ++i) {
    if (asked[i].second == defaults[i].second) continue;
    return ConfigError("memory." + asked[i].first + " = " + ToToml(asked[i].second) +
                       " is for language models (gpt, llama); this model keeps its activations "
                       "as they are");
  }
  return OkStatus();
}

}  // namespace tw
