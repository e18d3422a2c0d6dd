// The formula behind `explain` against the allocator's count.

#include <gtest/gtest.h>

#include <cmath>

#include "core/engine/tensor_memory.h"
#include "core/nn/layers.h"
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
int64_t Measure(LanguageModel& model, int64_t batch, int64_t tokens, int64_t vocab,
                Precision precision) {
  for (at::Tensor& p : model.parameters()) p.mutable_grad() = torch::zeros_like(p);
  const int64_t before = LiveTensorBytes();
  ResetPeakTensorBytes();
  {
    const at::Tensor ids = torch::randint(vocab, {batch, tokens + 1}, torch::kLong);
    at::Tensor loss;
    {
      const PrecisionScope scope(precision == Precision::kBf16, at::kCPU);
      loss = model.Loss(ids.narrow(1, 0, tokens), ids.narrow(1, 1, tokens));
    }
    loss.backward();
  }
  return PeakTensorBytes() - before;
}

void Narrow(LanguageModel& model) {
  TW_CHECK_OK(model.NarrowActivations());
  for (const auto& module : model.modules()) {
    const auto* linear = module->as<Linear>();
    if (linear) linear->weight.set_data(linear->weight.to(at::kBFloat16));
  }
}

void ExpectEstimate(const std::string& kind, int64_t vocab, Precision precision) {
  InstallTensorMemoryCounter();
  const int64_t batch = 2, tokens = 256;
  for (const Way& way : Ways()) {
    const ModelInput input{.vocab = vocab, .context = tokens};
    auto made = kind == "gpt"
                    ? CreateGpt({.layers = 4, .width = 64, .heads = 4}, input, 1, way.memory)
                    : CreateLlama({.layers = 4, .width = 64, .heads = 4}, input, 1, way.memory);
    ASSERT_TRUE(made.ok()) << made.status();
    LanguageModel& model = **made;
    if (precision == Precision::kBf16Pure) Narrow(model);
    const auto estimate = model.EstimateActivations(batch, tokens, precision);
    ASSERT_TRUE(estimate.has_value());
    const auto predicted = static_cast<double>(estimate->peak);
    const auto measured = static_cast<double>(Measure(model, batch, tokens, vocab, precision));
    EXPECT_NEAR(predicted / measured, 1, kTolerance)
        << kind << ", " << way.name << ", vocabulary " << vocab << ", precision "
        << static_cast<int>(precision) << ": predicted " << predicted << ", measured " << measured;
  }
}

TEST(ActivationEstimate, OfGptIsWithinTwelvePercent) {
  ExpectEstimate("gpt", 256, Precision::kFp32);
  ExpectEstimate("gpt", 3000, Precision::kFp32);
}

TEST(ActivationEstimate, OfLlamaIsWithinTwelvePercent) {
  ExpectEstimate("llama", 256, Precision::kFp32);
  ExpectEstimate("llama", 3000, Precision::kFp32);
}

TEST(ActivationEstimate, UnderBf16IsWithinTwelvePercent) {
  ExpectEstimate("gpt", 256, Precision::kBf16);
  ExpectEstimate("llama", 256, Precision::kBf16);
  ExpectEstimate("llama", 3000, Precision::kBf16);
}

TEST(ActivationEstimate, OfPureBf16IsWithinTwelvePercent) {
  for (const char* kind : {"gpt", "llama"}) {
    for (const int64_t vocab : {256, 3000}) ExpectEstimate(kind, vocab, Precision::kBf16Pure);
  }
}

TEST(ActivationEstimate, LayersAddUpToNoMoreThanThePeak) {
  for (const Way& way : Ways()) {
    const auto model = CreateGpt({.layers = 4}, {.context = 512}, 1, way.memory);
    ASSERT_TRUE(model.ok());
    const auto estimate = (*model)->EstimateActivations(4, 512, Precision::kFp32);
    int64_t sum = 0;
    for (const auto& layer : estimate->layers) sum += layer.bytes;
    EXPECT_EQ(estimate->layers.size(), 7u);
    EXPECT_LE(sum, estimate->peak) << way.name;
  }
}

}  // namespace
}  // namespace tw
