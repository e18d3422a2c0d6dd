#include "core/nn/model/gpt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/nn/model_golden.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::shared_ptr<LanguageModel> Make(const GptConfig& config, const ModelInput& input,
                                    uint64_t seed = 1) {
  auto model = CreateGpt(config, input, seed);
  TW_CHECK_OK(model);
  return *model;
}

std::shared_ptr<LanguageModel> MakeGolden(const nlohmann::json& golden) {
  const auto& c = golden["config"];
  return Make({.layers = c["layers"], .width = c["width"], .heads = c["heads"]},
              {.vocab = c["vocab"], .context = c["context"]});
}

TEST(Gpt, DefaultHas4837376ParametersAndNoneTwice) {
  const auto model = Make({}, {});
  int64_t numel = 0;
  for (const auto& p : model->parameters()) numel += p.numel();
  EXPECT_EQ(numel, 4837376);
}

TEST(Gpt, RegistersInTheOrderOfTheForwardPass) {
  std::vector<std::string> names;
  for (const auto& item : Make({.layers = 1}, {})->named_parameters()) names.push_back(item.key());
  EXPECT_EQ(names, (std::vector<std::string>{
                       "tok.weight", "pos.weight", "blocks.0.ln1.weight", "blocks.0.ln1.bias",
                       "blocks.0.ln2.weight", "blocks.0.ln2.bias", "blocks.0.qkv.weight",
                       "blocks.0.qkv.bias", "blocks.0.proj.weight", "blocks.0.proj.bias",
                       "blocks.0.fc.weight", "blocks.0.fc.bias", "blocks.0.out.weight",
                       "blocks.0.out.bias", "lnf.weight", "lnf.bias"}));
}

TEST(Gpt, HasPyTorchsNamesAndShapes) {
  const auto golden = ReadGolden("gpt_tiny.json");
  ExpectNames(*MakeGolden(golden), golden);
}

TEST(Gpt, GivesPyTorchsLossAndGradient) {
  const auto golden = ReadGolden("gpt_tiny.json");
  ExpectLossAndGradient(*MakeGolden(golden), golden);
}

TEST(Gpt, FollowsPyTorchOver20AdamWSteps) {
  const auto golden = ReadGolden("gpt_tiny.json");
  const auto model = MakeGolden(golden);
  torch::optim::AdamW optimizer(model->parameters(),
                                torch::optim::AdamWOptions(golden["adamw"]["lr"].get<double>())
                                    .weight_decay(golden["adamw"]["weight_decay"].get<double>()));
  ExpectLosses(*model, optimizer, golden, golden["adamw"]["losses"]);
}

TEST(Gpt, FollowsPyTorchOver20SgdSteps) {
  const auto golden = ReadGolden("gpt_tiny.json");
  const auto model = MakeGolden(golden);
  torch::optim::SGD optimizer(model->parameters(),
                              torch::optim::SGDOptions(golden["sgd"]["lr"].get<double>()));
  ExpectLosses(*model, optimizer, golden, golden["sgd"]["losses"]);
}

TEST(Gpt, InitialWeightsFollowGpt2) {
  const auto model = Make({}, {});
  for (const auto& item : model->named_parameters()) {
    const std::string& name = item.key();
    const at::Tensor& w = item.value();
    if (w.dim() == 1) {
      const bool one =
          name.find("ln") != std::string::npos && name.find("weight") != std::string::npos;
      EXPECT_TRUE((w == (one ? 1 : 0)).all().item<bool>()) << name;
      continue;
    }
    const bool residual =
        name.find("proj") != std::string::npos || name.find("out") != std::string::npos;
    const double std = residual ? 0.02 / std::sqrt(12.0) : 0.02;
    const double numel = static_cast<double>(w.numel());
    EXPECT_NEAR(w.std().item<double>(), std, 5 * std / std::sqrt(2 * numel)) << name;
    EXPECT_NEAR(w.mean().item<double>(), 0, 5 * std / std::sqrt(numel)) << name;
  }
}

TEST(Gpt, InitialLossIsThatOfUniformGuessing) {
  const auto model = Make({.layers = 2, .width = 64}, {.context = 16});
  const at::Tensor ids = torch::arange(32).view({2, 16});
  const at::Tensor logits = model->Forward(ids);
  ASSERT_EQ(logits.sizes(), (std::vector<int64_t>{2, 16, 256}));
  const double loss =
      at::cross_entropy_loss(logits.flatten(0, 1), (ids + 100).flatten()).item<double>();
  EXPECT_NEAR(loss, std::log(256.0), 0.1);
}

TEST(Gpt, SeesOnlyThePast) {
  const auto model = Make({.layers = 2, .width = 64}, {.context = 16}, 5);
  const at::Tensor ids = torch::arange(16).view({1, 16});
  at::Tensor changed = ids.clone();
  changed[0][9] = 77;
  const torch::NoGradGuard no_grad;
  const at::Tensor a = model->Forward(ids), b = model->Forward(changed);
  EXPECT_TRUE(torch::allclose(a.narrow(1, 0, 9), b.narrow(1, 0, 9)));
  EXPECT_FALSE(torch::allclose(a.narrow(1, 9, 1), b.narrow(1, 9, 1)));
}

TEST(Gpt, RefusesAWidthThatHeadsDoNotDivide) {
  const auto model = CreateGpt({.width = 100, .heads = 8}, {}, 1);
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(FaultOf(model.status()), Fault::kConfig);
  EXPECT_THAT(std::string(model.status().message()),
              AllOf(HasSubstr("width = 100"), HasSubstr("heads = 8")));
}

TEST(Gpt, IsMadeByName) {
  ConfigSection section;
  const auto factory = Registry<ModelFactory>::Get().Make(section, "gpt");
  ASSERT_TRUE(factory.ok()) << factory.status();
  EXPECT_TRUE((*factory)->Takes(InputKind::kTokens));
  EXPECT_FALSE((*factory)->Takes(InputKind::kImage));
  EXPECT_TRUE((*factory)->Create({}, 1, {}).ok());
}

}  // namespace
}  // namespace tw
