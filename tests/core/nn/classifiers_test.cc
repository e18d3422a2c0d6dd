#include "core/nn/model/classifiers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tw {
namespace {

using ::testing::HasSubstr;

constexpr ModelInput kDigits = {
    .kind = InputKind::kImage, .channels = 1, .height = 28, .width = 28, .classes = 10};
constexpr ModelInput kRows = {.kind = InputKind::kRows, .features = 20, .classes = 2};

std::shared_ptr<Model> Make(const std::string& name, const ModelInput& input, uint64_t seed = 1) {
  ConfigSection section;
  auto factory = Registry<ModelFactory>::Get().Make(section, name);
  TW_CHECK_OK(factory);
  TW_CHECK((*factory)->Takes(input.kind));
  auto model = (*factory)->Create(input, seed, {});
  TW_CHECK_OK(model);
  return *model;
}

int64_t Count(const torch::nn::Module& model) {
  int64_t numel = 0;
  for (const auto& p : model.parameters()) numel += p.numel();
  return numel;
}

TEST(Classifiers, HaveTheParametersOneCountsByHand) {
  EXPECT_EQ(Count(*Make("linear", kRows)), 20 * 2 + 2);
  EXPECT_EQ(Count(*Make("mlp", kDigits)), (784 * 256 + 256) + (256 * 256 + 256) + (256 * 10 + 10));
  EXPECT_EQ(Count(*Make("cnn", kDigits)),
            (25 * 32 + 32) + (25 * 32 * 64 + 64) + (7 * 7 * 64 * 128 + 128) + (128 * 10 + 10));
  const int64_t stage1 = 9 * 16 * 16 * 2 + 4 * 16;
  const int64_t stage2 = 9 * 16 * 32 + 9 * 32 * 32 + 4 * 32 + 16 * 32;
  const int64_t stage3 = 9 * 32 * 64 + 9 * 64 * 64 + 4 * 64 + 32 * 64;
  EXPECT_EQ(Count(*Make("resnet", kDigits)),
            9 * 16 + 2 * 16 + stage1 + stage2 + stage3 + 64 * 10 + 10);
}

TEST(Classifiers, GiveAScoreAClass) {
  for (const char* name : {"linear", "mlp", "cnn", "resnet"}) {
    EXPECT_EQ(Make(name, kDigits)->Forward(torch::ones({3, 1, 28, 28})).sizes(),
              (std::vector<int64_t>{3, 10}))
        << name;
  }
  for (const char* name : {"linear", "mlp"}) {
    EXPECT_EQ(Make(name, kRows)->Forward(torch::ones({3, 20})).sizes(),
              (std::vector<int64_t>{3, 2}))
        << name;
  }
  // Sizes that no stride divides.
  const ModelInput odd = {
      .kind = InputKind::kImage, .channels = 3, .height = 13, .width = 7, .classes = 4};
  for (const char* name : {"cnn", "resnet"}) {
    EXPECT_EQ(Make(name, odd)->Forward(torch::ones({2, 3, 13, 7})).sizes(),
              (std::vector<int64_t>{2, 4}))
        << name;
  }
}

TEST(Classifiers, FollowTheSeedAndNothingElse) {
  for (const char* name : {"mlp", "cnn", "resnet"}) {
    const auto a = Make(name, kDigits, 3)->parameters();
    torch::manual_seed(17);
    const auto b = Make(name, kDigits, 3)->parameters(), c = Make(name, kDigits, 4)->parameters();
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].equal(b[i])) << name;
    EXPECT_FALSE(a[0].equal(c[0])) << name;
  }
}

TEST(Classifiers, LinearStartsAtEvenOdds) {
  EXPECT_TRUE(Make("linear", kRows)->Forward(torch::randn({5, 20})).equal(torch::zeros({5, 2})));
}

TEST(Classifiers, ActivationsKeepTheirScaleThroughTheMlp) {
  ConfigSection section;
  section.Set("layers", int64_t{10});
  auto factory = Registry<ModelFactory>::Get().Make(section, "mlp");
  TW_CHECK_OK(factory);
  const auto model = *(*factory)->Create(kDigits, 1, {});
  const double scale =
      model->Forward(torch::ones({1, 784})).norm().item<double>() / std::sqrt(10.0);
  EXPECT_GT(scale, 0.2);
  EXPECT_LT(scale, 3.0);
}

TEST(Classifiers, KeepNoBuffersThatReplicasWouldHaveToAgreeOn) {
  for (const char* name : {"linear", "mlp", "cnn", "resnet"})
    EXPECT_TRUE(Make(name, kDigits)->buffers().empty());
}

TEST(Classifiers, CnnRefusesImagesItCannotPool) {
  const auto model =
      CreateCnn({}, {.kind = InputKind::kImage, .channels = 1, .height = 3, .width = 9}, 1);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("3 x 9"));
}

}  // namespace
}  // namespace tw
