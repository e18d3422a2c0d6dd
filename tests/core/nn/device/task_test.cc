// Tasks on a device: the host's numbers at the start, batches that go where the model is, losses
// and gradients of the host to rounding.
#include "core/api/task.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "core/engine/task/module_task.h"
#include "core/engine/tensor_memory.h"
#include "core/nn/torch.h"
#include "tests/core/data/temp_folder.h"
#include "tests/core/nn/device/emulated_tensors.h"

namespace tw {
namespace {

using Keys = std::map<std::string, FieldValue>;

ConfigSection Section(const std::string& name, const Keys& keys) {
  ConfigSection section;
  section.name = name;
  for (const auto& [key, value] : keys) section.Set(key, value);
  return section;
}

struct TaskSetup {
  std::string task, model;
  Keys keys = {};  // of the model
  std::string precision = "fp32";
  bool bf16_weights = false;
  MemoryConfig memory = {};
  std::string activations = "none";
};

const Keys kSmall = {{"layers", int64_t{1}}, {"width", int64_t{16}}, {"heads", int64_t{2}}};

std::unique_ptr<Task> Make(const TaskSetup& setup, at::Device device) {
  TaskOptions options;
  options.model = Section("model", setup.keys);
  options.model.Set("name", setup.model);
  options.batch_size = 2;
  options.device = device;
  options.precision = setup.precision;
  options.bf16_weights = setup.bf16_weights;
  options.memory = setup.memory;
  auto codec = Registry<ActivationCodec>::Get().Find(setup.activations)->make(ConfigSection{});
  TW_CHECK_OK(codec);
  options.activations = std::move(*codec);
  Keys data = {{"path", std::string("synthetic")}};
  if (setup.task == "lm") data["context"] = int64_t{8};
  auto kind = Registry<TaskKind>::Get().Find(setup.task)->make(Section("data", data));
  TW_CHECK_OK(kind);
  auto task = (*kind)->Create(options);
  TW_CHECK_OK(task);
  return std::move(*task);
}

bool Near(const at::Tensor& got, const at::Tensor& want, double tolerance) {
  const at::Tensor a = got.cpu().to(at::kFloat), b = want.to(at::kFloat);
  return at::allclose(a, b, 0, tolerance * b.abs().max().item<double>() + 1e-12);
}

class DeviceTask : public testing::Test {
 protected:
  void ExpectTheHosts(const TaskSetup& setup, double tolerance = 2e-5) {
    SCOPED_TRACE(setup.model + " " + setup.precision + " " + setup.memory.activations + " " +
                 setup.activations);
    const auto host = Make(setup, at::kCPU), device = Make(setup, kEmulatedDevice);
    const auto want = host->parameters(), got = device->parameters();
    ASSERT_EQ(want.size(), got.size());
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_EQ(got[i].second.device(), kEmulatedDevice) << got[i].first;
      EXPECT_TRUE(at::equal(got[i].second.cpu(), want[i].second)) << got[i].first;
    }
    const at::Tensor wanted = host->Loss(3, 0);
    wanted.backward();
    const int64_t before = EmulatedTensors::copies_to_host();
    const at::Tensor loss = device->Loss(3, 0);
    loss.backward();
    EXPECT_EQ(EmulatedTensors::copies_to_host(), before) << "something waited";
    EXPECT_NEAR(loss.item<double>(), wanted.item<double>(), tolerance * wanted.item<double>());
    const Sketches wanted_leaves = host->sketches(), leaves = device->sketches();
    for (size_t i = 0; i < want.size(); ++i) {
      const auto& [name, parameter] = got[i];
      const at::Tensor gradient = GradientLeaf(leaves, name, parameter).grad();
      ASSERT_TRUE(gradient.defined()) << name;
      EXPECT_EQ(gradient.device(), kEmulatedDevice) << name;
      EXPECT_TRUE(
          Near(gradient, GradientLeaf(wanted_leaves, name, want[i].second).grad(), 10 * tolerance))
          << name;
    }
  }
  EmulatedTensors tensors_;
};

TEST_F(DeviceTask, LanguageModels) {
  ExpectTheHosts({"lm", "gpt", kSmall});
  ExpectTheHosts({"lm", "llama", kSmall});
}

TEST_F(DeviceTask, ModelsOfPicturesAndRows) {
  for (const char* model : {"cnn", "resnet", "mlp", "linear"}) ExpectTheHosts({"image", model});
}

TEST_F(DeviceTask, UnderBf16) {
  ExpectTheHosts({"lm", "gpt", kSmall, "bf16"}, 2e-2);
  ExpectTheHosts({"lm", "llama", kSmall, "bf16", true}, 2e-2);
}

TEST_F(DeviceTask, InPureBf16) {
  for (const char* model : {"gpt", "llama"}) {
    ExpectTheHosts({"lm", model, kSmall, "bf16_pure", true}, 2e-2);
    for (const char* form : {"fused", "recompute"}) {
      const MemoryConfig memory{
          .activations = "checkpoint", .mlp_chunks = 3, .head_chunks = 4, .head_form = form};
      ExpectTheHosts({"lm", model, kSmall, "bf16_pure", true, memory}, 2e-2);
    }
    MemoryConfig memory;
    memory.activations = "int8";
    ExpectTheHosts({"lm", model, kSmall, "bf16_pure", true, memory, "int8"}, 2e-2);
  }
}

TEST_F(DeviceTask, WhereMemoryIsSaved) {
  for (const char* model : {"gpt", "llama"}) {
    for (const char* form : {"fused", "recompute"}) {
      const MemoryConfig memory{
          .activations = "checkpoint", .mlp_chunks = 3, .head_chunks = 4, .head_form = form};
      ExpectTheHosts({"lm", model, kSmall, "fp32", false, memory});
      ExpectTheHosts({"lm", model, kSmall, "bf16", false, memory}, 2e-2);
    }
    for (const char* codec : {"compact", "int8"}) {
      MemoryConfig memory;
      memory.activations = codec;
      ExpectTheHosts({"lm", model, kSmall, "fp32", false, memory, codec});
    }
  }
}

TEST_F(DeviceTask, EvaluatesLikeTheHost) {
  for (const TaskSetup& setup : {TaskSetup{"lm", "gpt", kSmall}, {"image", "linear"}}) {
    const auto want = Make(setup, at::kCPU)->EvaluatePart(0, 1000);
    const auto got = Make(setup, kEmulatedDevice)->EvaluatePart(0, 1000);
    TW_CHECK_OK(want);
    TW_CHECK_OK(got);
    EXPECT_NEAR(got->loss, want->loss, 1e-5 * want->loss);
    EXPECT_EQ(got->accuracy, want->accuracy);
    EXPECT_EQ(got->tokens, want->tokens);
  }
}

TEST_F(DeviceTask, WeightsGoToAFileAndComeBack) {
  const TempFolder dir;
  const TaskSetup setup{"lm", "llama", kSmall};
  const auto from = Make(setup, kEmulatedDevice), to = Make(setup, kEmulatedDevice),
             host = Make(setup, at::kCPU);
  {
    const torch::NoGradGuard no_grad;
    for (const auto& [name, parameter] : from->parameters()) parameter.mul_(3);
  }
  TW_CHECK_OK(from->SaveWeights(dir.Path("w")));
  for (Task* task : {to.get(), host.get()}) {
    TW_CHECK_OK(task->LoadWeights(dir.Path("w")));
    const auto want = from->parameters(), got = task->parameters();
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_TRUE(at::equal(got[i].second.cpu(), want[i].second.cpu())) << want[i].first;
    }
  }
}

struct Slope : torch::nn::Module {
  Slope() : weight(register_parameter("weight", torch::ones({2, 1}))) {}
  at::Tensor weight;
};
class OwnTask : public TaskFor<Slope> {
 public:
  explicit OwnTask(const TaskOptions& options) : TaskFor(options) {}
  at::Tensor Loss(uint64_t step, int64_t micro) override {
    return Moved(torch::rand({4, 2}, BatchGenerator(step, micro))).mm(module().weight).mean();
  }
  StatusOr<EvalResult> Evaluate() override { return EvalResult{}; }
};

TEST_F(DeviceTask, OfAModuleOfOnesOwn) {
  TaskOptions options;
  OwnTask host(options);
  options.device = kEmulatedDevice;
  OwnTask device(options);
  device.Loss(1, 0).backward();
  host.Loss(1, 0).backward();
  EXPECT_TRUE(Near(device.parameters()[0].second.grad(), host.parameters()[0].second.grad(), 1e-6));
}

TEST_F(DeviceTask, MemoryIsCountedByTheDevice) {
  const int64_t before = LiveTensorBytes(kEmulatedDevice);
  ResetPeakTensorBytes(kEmulatedDevice);
  {
    const at::Tensor kept = torch::zeros({1000}, kEmulatedDevice);
    EXPECT_EQ(LiveTensorBytes(kEmulatedDevice) - before, 4000);
    torch::empty({500}, kEmulatedDevice);
  }
  EXPECT_EQ(LiveTensorBytes(kEmulatedDevice), before);
  EXPECT_EQ(PeakTensorBytes(kEmulatedDevice) - before, 6000);
  EXPECT_EQ(LiveTensorBytes(at::Device(at::kCUDA)), 0);  // no library, no tensors
  const int64_t emptied = EmulatedTensors::times_emptied();
  for (const at::Device& d : {kEmulatedDevice, at::Device(at::kCPU), at::Device(at::kCUDA)}) {
    GiveBackUnusedTensorMemory(d);
  }
  EXPECT_EQ(EmulatedTensors::times_emptied(), emptied + 1);
}

}  // namespace
}  // namespace tw
