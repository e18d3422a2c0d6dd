#include "core/api/task.h"
#include "core/nn/torch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/data/file.h"
#include "core/nn/model/model.h"
#include "core/nn/safetensors/safetensors.h"
#include "tests/core/data/temp_folder.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Keys = std::map<std::string, FieldValue>;

ConfigSection Section(const std::string& name, const Keys& keys) {
  ConfigSection section;
  section.name = name;
  for (const auto& [key, value] : keys) section.Set(key, value);
  return section;
}

const Keys kTinyGpt = {{"layers", int64_t{1}}, {"width", int64_t{16}}, {"heads", int64_t{2}}};

TaskOptions Options(const Keys& model = {}) {
  TaskOptions options;
  options.model = Section("model", model);
  options.batch_size = 4;
  return options;
}

StatusOr<std::unique_ptr<Task>> TryMake(const std::string& kind, const Keys& data,
                                        const TaskOptions& options) {
  TW_ASSIGN_OR_RETURN(auto made, Registry<TaskKind>::Get().Find(kind)->make(Section("data", data)));
  return made->Create(options);
}

std::unique_ptr<Task> Make(const std::string& kind, const Keys& data, const TaskOptions& options) {
  auto task = TryMake(kind, data, options);
  TW_CHECK_OK(task);
  return std::move(*task);
}

std::unique_ptr<Task> TinyLm(TaskOptions options = Options(kTinyGpt)) {
  return Make("lm", {{"path", std::string("synthetic")}, {"context", int64_t{16}}}, options);
}

float LossAt(Task& task, uint64_t step, int64_t micro) {
  const torch::NoGradGuard no_grad;
  return task.Loss(step, micro).item<float>();
}

// Plain SGD; the last loss.
double Train(Task& task, int steps, double lr) {
  double last = 0;
  for (int step = 0; step < steps; ++step) {
    const at::Tensor loss = task.Loss(static_cast<uint64_t>(step), 0);
    loss.backward();
    last = loss.item<double>();
    const torch::NoGradGuard no_grad;
    for (auto& [name, p] : task.parameters()) {
      p.sub_(p.grad(), lr);
      p.mutable_grad().reset();
    }
  }
  return last;
}

TEST(LmTask, LossIsAPureFunctionOfSeedStepMicroStepAndRank) {
  const auto task = TinyLm();
  const float loss = LossAt(*task, 5, 1);
  EXPECT_EQ(loss, LossAt(*task, 5, 1));
  EXPECT_EQ(loss, LossAt(*TinyLm(), 5, 1));
  EXPECT_NE(loss, LossAt(*task, 6, 1));
  EXPECT_NE(loss, LossAt(*task, 5, 0));
  TaskOptions other = Options(kTinyGpt);
  other.rank = 1;
  other.world_size = 2;
  EXPECT_NE(loss, LossAt(*TinyLm(other), 5, 1));
  EXPECT_EQ(task->samples_per_batch(), 4);
  EXPECT_EQ(task->tokens_per_batch(), 64);
}

TEST(LmTask, RanksStartFromTheSameWeights) {
  TaskOptions other = Options(kTinyGpt);
  other.rank = 3;
  other.world_size = 4;
  const auto a = TinyLm(), b = TinyLm(other);
  const auto mine = a->parameters(), theirs = b->parameters();
  ASSERT_EQ(mine.size(), theirs.size());
  for (size_t i = 0; i < mine.size(); ++i) {
    EXPECT_EQ(mine[i].first, theirs[i].first);
    EXPECT_TRUE(mine[i].second.equal(theirs[i].second));
  }
  EXPECT_EQ(mine[0].first, "tok.weight");
}

TEST(LmTask, LearnsTheSyntheticText) {
  const auto task = TinyLm();
  const double before = task->Evaluate()->loss;
  EXPECT_NEAR(before, std::log(256.0), 0.1);
  Train(*task, 150, 0.5);
  EXPECT_LT(task->Evaluate()->loss, 3.2);
}

TEST(LmTask, EvaluatesEveryWholeWindowOnce) {
  const TempFolder dir;
  std::string text;
  for (int i = 0; i < 100; ++i) text += static_cast<char>('a' + i * i % 23);
  TaskOptions options = Options(kTinyGpt);
  options.for_eval = true;
  const Keys data = {
      {"path", dir.Path("absent")}, {"val_path", dir.Write("v", text)}, {"context", int64_t{16}}};
  const auto task = Make("lm", data, options);
  const auto result = task->Evaluate();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->tokens, 96);  // six windows need 97 of the 100 bytes
  EXPECT_FALSE(result->accuracy.has_value());
  // The same by hand, one window at a time.
  const auto factory = Registry<ModelFactory>::Get().Make(options.model, "gpt");
  const auto model = *(*factory)->Create({.vocab = 256, .context = 16}, 1, {});
  const torch::NoGradGuard no_grad;
  double sum = 0;
  for (int window = 0; window < 6; ++window) {
    std::vector<int64_t> ids(text.begin() + 16 * window, text.begin() + 16 * window + 17);
    const at::Tensor w = torch::tensor(ids);
    sum += at::cross_entropy_loss(model->Forward(w.narrow(0, 0, 16).unsqueeze(0))[0],
                                  w.narrow(0, 1, 16))
               .item<double>();
  }
  EXPECT_NEAR(result->loss, sum / 6, 1e-5);
}

TEST(LmTask, PartsAddUpToTheWholeEvaluation) {
  const auto task = TinyLm();
  const auto whole = task->Evaluate();
  double sum = 0;
  int64_t tokens = 0;
  for (int part = 0; part < 3; ++part) {
    const auto result = task->EvaluatePart(part, 3);
    sum += result->loss * static_cast<double>(result->tokens);
    tokens += result->tokens;
  }
  EXPECT_EQ(tokens, whole->tokens);
  EXPECT_NEAR(sum / static_cast<double>(tokens), whole->loss, 1e-5);
}

TEST(LmTask, WeightsSurviveAFile) {
  const TempFolder dir;
  const auto task = TinyLm();
  Train(*task, 3, 0.1);
  ASSERT_TRUE(task->SaveWeights(dir.Path("w.safetensors")).ok());
  TaskOptions options = Options(kTinyGpt);
  const auto other = TinyLm(options);
  EXPECT_NE(LossAt(*task, 0, 0), LossAt(*other, 0, 0));
  ASSERT_TRUE(other->LoadWeights(dir.Path("w.safetensors")).ok());
  EXPECT_EQ(LossAt(*task, 0, 0), LossAt(*other, 0, 0));
  const auto file = SafetensorsFile::Open(dir.Path("w.safetensors"));
  EXPECT_EQ(file->entries().count("head.weight"), 0u);
  EXPECT_EQ(file->entries().at("tok.weight").shape, (std::vector<int64_t>{256, 16}));
}

TEST(LmTask, TrainsLlamaToo) {
  Keys model = kTinyGpt;
  model["name"] = std::string("llama");
  const auto task = TinyLm(Options(model));
  const float before = LossAt(*task, 0, 0);
  EXPECT_LT(Train(*task, 30, 0.5), before - 0.5);
}

TEST(LmTask, Bf16ChangesTheForwardPassAndNothingElse) {
  TaskOptions options = Options(kTinyGpt);
  options.precision = "bf16";
  const auto half = TinyLm(options);
  const auto full = TinyLm();
  const float a = LossAt(*half, 0, 0), b = LossAt(*full, 0, 0);
  EXPECT_NE(a, b);
  EXPECT_NEAR(a, b, 0.01 * b);
  const at::Tensor loss = half->Loss(0, 0);
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  loss.backward();
  for (const auto& [name, p] : half->parameters()) {
    EXPECT_EQ(p.scalar_type(), at::kFloat);
    EXPECT_EQ(p.grad().scalar_type(), at::kFloat) << name;
  }
  EXPECT_EQ(b, LossAt(*full, 0, 0));  // autocast is off again
  Train(*half, 150, 0.5);             // cached casts of old weights would stop it from learning
  EXPECT_LT(half->Evaluate()->loss, 3.3);
}

TEST(LmTask, RefusesWhatItCannotDo) {
  const Keys synthetic = {{"path", std::string("synthetic")}};
  const auto model = TryMake("lm", synthetic, Options({{"name", std::string("cnn")}}));
  EXPECT_EQ(FaultOf(model.status()), Fault::kConfig);
  EXPECT_THAT(std::string(model.status().message()),
              AllOf(HasSubstr("\"cnn\""), HasSubstr("gpt, llama")));
  const auto shard = TryMake("lm", {{"shard", std::string("by_label")}}, Options());
  EXPECT_THAT(std::string(shard.status().message()),
              AllOf(HasSubstr("by_label"), HasSubstr("iid")));
  TaskOptions options = Options(kTinyGpt);
  options.precision = "fp8";
  EXPECT_EQ(FaultOf(TryMake("lm", synthetic, options).status()), Fault::kConfig);
  EXPECT_EQ(FaultOf(TryMake("lm", {{"path", std::string("/absent")}}, Options()).status()),
            Fault::kData);
}

TEST(ImageTask, LearnsSyntheticPictures) {
  for (const char* name : {"mlp", "cnn"}) {
    TaskOptions options = Options({{"name", std::string(name)}, {"width", int64_t{8}}});
    options.batch_size = 32;
    const auto task = Make("image", {{"path", std::string("synthetic")}}, options);
    Train(*task, 60, 0.05);
    const auto result = task->Evaluate();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->tokens, 409);
    EXPECT_GT(*result->accuracy, 0.5) << name;
  }
}

TEST(ImageTask, EvaluatesTheTestFilesOfAFolder) {
  const std::string folder = std::string(TW_SHARED_DATA) + "/mnist";
  if (!IsFolder(folder)) GTEST_SKIP() << folder << " is not there";
  TaskOptions options = Options({{"name", std::string("linear")}});
  options.batch_size = 64;
  const auto task = Make("image", {{"path", folder}}, options);
  EXPECT_NEAR(task->Evaluate()->loss, std::log(10.0), 1e-5);
  Train(*task, 200, 0.05);
  const auto result = task->Evaluate();
  EXPECT_EQ(result->tokens, 10000);
  EXPECT_GT(*result->accuracy, 0.85);
}

TEST(TabularTask, LearnsSyntheticRows) {
  TaskOptions options = Options();
  options.batch_size = 32;
  const auto task = Make("tabular", {{"path", std::string("synthetic")}}, options);
  EXPECT_NEAR(task->Evaluate()->loss, std::log(2.0), 1e-6);
  Train(*task, 300, 0.2);
  const auto result = task->Evaluate();
  EXPECT_GT(*result->accuracy, 0.8);
  EXPECT_LT(result->loss, 0.45);
}

TEST(TabularTask, TakesAValidationFileOfItsOwn) {
  const TempFolder dir;
  const std::string train = dir.Write("train", "-1 1:1\n+1 2:1\n-1 1:2\n+1 4:1\n");
  const Keys data = {{"path", train}, {"val_path", dir.Write("val", "+1 2:3\n")}};
  const auto task = Make("tabular", data, Options());
  Train(*task, 50, 0.5);
  const auto result = task->Evaluate();
  EXPECT_EQ(result->tokens, 1);
  EXPECT_EQ(*result->accuracy, 1);
  // Alone, the validation file names two columns; with data.features it fits the model again.
  TaskOptions eval = Options();
  eval.for_eval = true;
  ASSERT_TRUE(task->SaveWeights(dir.Path("w")).ok());
  Keys alone = {
      {"path", dir.Path("absent")}, {"val_path", dir.Path("val")}, {"features", int64_t{4}}};
  const auto later = Make("tabular", alone, eval);
  ASSERT_TRUE(later->LoadWeights(dir.Path("w")).ok());
  EXPECT_EQ(later->Evaluate()->loss, result->loss);

  const auto unlike =
      TryMake("tabular", {{"path", train}, {"val_path", dir.Write("odd", "3 1:1\n")}}, Options());
  EXPECT_THAT(std::string(unlike.status().message()), AllOf(HasSubstr("odd"), HasSubstr("-1, 1")));
}

TEST(TabularTask, NamesTheFileThatIsTooShortToSplit) {
  const TempFolder dir;
  const auto task =
      TryMake("tabular", {{"path", dir.Write("short.txt", "1 1:1\n0 1:2\n")}}, Options());
  EXPECT_EQ(FaultOf(task.status()), Fault::kData);
  EXPECT_THAT(std::string(task.status().message()),
              AllOf(HasSubstr("short.txt: "), HasSubstr("2 samples")));
}

TEST(TabularTask, EachRankSeesItsOwnShard) {
  const TempFolder dir;
  // Feature i + 1 is on in row i alone: the gradient shows which rows a batch used.
  std::string text;
  for (int i = 0; i < 40; ++i) text += std::to_string(i % 2) + " " + std::to_string(i + 1) + ":1\n";
  const Keys data = {{"path", dir.Write("train", text)},
                     {"val_path", dir.Write("val", "0 40:1\n")},
                     {"shard", std::string("by_label")}};
  for (int rank = 0; rank < 2; ++rank) {
    TaskOptions options = Options();
    options.rank = rank;
    options.world_size = 2;
    options.batch_size = 20;
    const auto task = Make("tabular", data, options);
    task->Loss(0, 0).backward();
    const at::Tensor used = task->parameters()[0].second.grad().abs().sum(0);
    for (int64_t i = 0; i < 40; ++i) {
      EXPECT_EQ(used[i].item<float>() != 0, i % 2 == rank) << "rank " << rank << " row " << i;
    }
  }
}

}  // namespace
}  // namespace tw
