// The formula behind `explain` against the allocator's count.

#include <gtest/gtest.h>

#include <cmath>

#include "core/engine/tensor_memory.h"
#include "core/nn/model/gpt.h"
#include "core/nn/model/llama.h"
#include "core/nn/precision.h"
#include "core/nn/torch.h"

namespace tw {
namespace {

constexpr double kTolerance = 0.12;

struct Way {
  const char* name;
  MemoryConfig memory;
};

std::vector<Way> Ways() {
  return {{"plain", {}},
          {"checkpoint", {.activations = "checkpoint"}},
          {"mlp", {.mlp_chunks = 4}},
          {"head fused", {.head_chunks = 8}},
          {"head recompute", {.head_chunks = 8, .head_form = "recompute"}},
          {"mst", {.mlp_chunks = 4, .head_chunks = 8}},
          {"all", {.activations = "checkpoint", .mlp_chunks = 4, .head_chunks = 8}}};
}

// Bytes at the worst moment of loss and backward beside parameters and gradients, ids included.
int64_t Measure(LanguageModel& model, int64_t batch, int64_t tokens, int64_t vocab, bool bf16) {
  for (at::Tensor& p : model.parameters()) p.mutable_grad() = torch::zeros_like(p);
  const int64_t before = LiveTensorBytes();
  ResetPeakTensorBytes();
  {
    const at::Tensor ids = torch::randint(vocab, {batch, tokens + 1}, torch::kLong);
    at::Tensor loss;
    {
      const PrecisionScope precision(bf16, at::kCPU);
      loss = model.Loss(ids.narrow(1, 0, tokens), ids.narrow(1, 1, tokens));
    }
    loss.backward();
  }
  return PeakTensorBytes() - before;
}

void ExpectEstimate(const std::string& kind, int64_t vocab, bool bf16) {
  InstallTensorMemoryCounter();
  const int64_t batch = 2, tokens = 256;
  for (const Way& way : Ways()) {
    const ModelInput input{.vocab = vocab, .context = tokens};
    auto made = kind == "gpt"
                    ? CreateGpt({.layers = 4, .width = 64, .heads = 4}, input, 1, way.memory)
                    : CreateLlama({.layers = 4, .width = 64, .heads = 4}, input, 1, way.memory);
    ASSERT_TRUE(made.ok()) << made.status();
    LanguageModel& model = **made;
    const auto estimate = model.EstimateActivations(batch, tokens, bf16);
    ASSERT_TRUE(estimate.has_value());
    const auto predicted = static_cast<double>(estimate->peak);
    const auto measured = static_cast<double>(Measure(model, batch, tokens, vocab, bf16));
    EXPECT_NEAR(predicted / measured, 1, kTolerance)
        << kind << ", " << way.name << ", vocabulary " << vocab << (bf16 ? ", bf16" : "")
        << ": predicted " << predicted << ", measured " << measured;
  }
}

TEST(ActivationEstimate, OfGptIsWithinTwelvePercent) {
  ExpectEstimate("gpt", 256, false);
  ExpectEstimate("gpt", 3000, false);
}

TEST(ActivationEstimate, OfLlamaIsWithinTwelvePercent) {
  ExpectEstimate("llama", 256, false);
  ExpectEstimate("llama", 3000, false);
}

TEST(ActivationEstimate, UnderBf16IsWithinTwelvePercent) {
  ExpectEstimate("gpt", 256, true);
  ExpectEstimate("llama", 256, true);
  ExpectEstimate("llama", 3000, true);
}

TEST(ActivationEstimate, LayersAddUpToNoMoreThanThePeak) {
  for (const Way& way : Ways()) {
    const auto model = CreateGpt({.layers = 4}, {.context = 512}, 1, way.memory);
    ASSERT_TRUE(model.ok());
    const auto estimate = (*model)->EstimateActivations(4, 512, false);
    int64_t sum = 0;
    for (const auto& layer : estimate->layers) sum += layer.bytes;
    EXPECT_EQ(estimate->layers.size(), 7u);
    EXPECT_LE(sum, estimate->peak) << way.name;
  }
}

}  // namespace
}  // namespace tw
