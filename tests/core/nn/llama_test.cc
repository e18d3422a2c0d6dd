#include "core/nn/model/llama.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/nn/model_golden.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::shared_ptr<LanguageModel> Make(const LlamaConfig& config, const ModelInput& input,
                                    uint64_t seed = 1) {
  auto model = CreateLlama(config, input, seed);
  TW_CHECK_OK(model);
  return *model;
}

std::shared_ptr<LanguageModel> MakeGolden(const nlohmann::json& golden) {
  const auto& c = golden["config"];
  return Make({.layers = c["layers"],
               .width = c["width"],
               .heads = c["heads"],
               .kv_heads = c["kv_heads"],
               .hidden = c["hidden"],
               .rope_theta = c["rope_theta"],
               .rms_eps = c["rms_eps"]},
              {.vocab = c["vocab"], .context = c["context"]});
}

TEST(Llama, HasHuggingFacesNamesAndShapes) {
  const auto golden = ReadGolden("llama_tiny.json");
  ExpectNames(*MakeGolden(golden), golden);
}

TEST(Llama, GivesHuggingFacesLossAndGradient) {
  const auto golden = ReadGolden("llama_tiny.json");
  ExpectLossAndGradient(*MakeGolden(golden), golden);
}

TEST(Llama, FollowsPyTorchOver20AdamWSteps) {
  const auto golden = ReadGolden("llama_tiny.json");
  const auto model = MakeGolden(golden);
  torch::optim::AdamW optimizer(model->parameters(),
                                torch::optim::AdamWOptions(golden["adamw"]["lr"].get<double>())
                                    .weight_decay(golden["adamw"]["weight_decay"].get<double>()));
  ExpectLosses(*model, optimizer, golden, golden["adamw"]["losses"]);
}

TEST(Llama, FollowsPyTorchOver20SgdSteps) {
  const auto golden = ReadGolden("llama_tiny.json");
  const auto model = MakeGolden(golden);
  torch::optim::SGD optimizer(model->parameters(),
                              torch::optim::SGDOptions(golden["sgd"]["lr"].get<double>()));
  ExpectLosses(*model, optimizer, golden, golden["sgd"]["losses"]);
}

TEST(Llama, DefaultsFollowTheWidth) {
  const auto model = Make({.layers = 1}, {});
  const auto named = model->named_parameters();
  EXPECT_EQ(named["model.layers.0.mlp.gate_proj.weight"].size(0), 896);
  EXPECT_EQ(named["model.layers.0.self_attn.k_proj.weight"].size(0), 256);
}

TEST(Llama, ATiedHeadIsRegisteredOnce) {
  const auto model = Make({.layers = 1, .tie = true}, {});
  EXPECT_FALSE(model->named_parameters().contains("lm_head.weight"));
  EXPECT_EQ(model->TiedNames().at("lm_head.weight"), "model.embed_tokens.weight");
  const auto untied = Make({.layers = 1}, {});
  EXPECT_EQ(untied->named_parameters().back().key(), "lm_head.weight");
  EXPECT_TRUE(untied->TiedNames().empty());
}

// Values carry no position: attention over equal tokens is their common value, whatever the
// rotations make of the scores.
TEST(Llama, ARepeatedTokenGivesTheSameScoresEverywhere) {
  const auto model = Make({.layers = 2, .width = 64, .heads = 4, .kv_heads = 2}, {.context = 16});
  const torch::NoGradGuard no_grad;
  const at::Tensor logits = model->Forward(torch::full({1, 16}, 7, torch::kLong));
  EXPECT_TRUE(torch::allclose(logits[0][0], logits[0][15], 1e-4, 1e-6));
}

TEST(Llama, RefusesSizesThatDoNotDivide) {
  const auto width = CreateLlama({.width = 100, .heads = 4}, {}, 1);
  EXPECT_THAT(std::string(width.status().message()),
              AllOf(HasSubstr("width = 100"), HasSubstr("8")));
  const auto heads = CreateLlama({.heads = 8, .kv_heads = 3}, {}, 1);
  EXPECT_THAT(std::string(heads.status().message()), HasSubstr("kv_heads = 3"));
  EXPECT_EQ(FaultOf(heads.status()), Fault::kConfig);
}

}  // namespace
}  // namespace tw
