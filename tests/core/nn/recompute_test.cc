#include "core/nn/recompute.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "core/engine/tensor_memory.h"
#include "core/nn/model/gpt.h"
#include "core/nn/model/llama.h"
#include "core/nn/precision.h"
#include "core/nn/torch.h"

namespace tw {
namespace {

void ExpectClose(const at::Tensor& a, const at::Tensor& b, double rtol, const std::string& what) {
  ASSERT_TRUE(a.defined() && b.defined()) << what;
  ASSERT_EQ(a.sizes(), b.sizes()) << what;
  EXPECT_TRUE(torch::allclose(a, b, rtol, rtol * b.abs().max().item<double>() + 1e-9))
      << what << ": largest difference " << (a - b).abs().max().item<double>() << " beside "
      << b.abs().max().item<double>();
}

struct SwiGlu {
  at::Tensor gate, up, down;

  SwiGlu(int64_t width, int64_t hidden) {
    torch::manual_seed(5);
    gate = (torch::randn({hidden, width}) * 0.2).requires_grad_();
    up = (torch::randn({hidden, width}) * 0.2).requires_grad_();
    down = (torch::randn({width, hidden}) * 0.2).requires_grad_();
  }
  std::vector<at::Tensor> parameters() const { return {gate, up, down}; }
  TensorFn body() const {
    return [this](const at::Tensor& x) {
      return at::linear(at::silu(at::linear(x, gate)) * at::linear(x, up), down);
    };
  }
};

TEST(Recompute, TilesGiveWhatTheWholeGives) {
  for (const int64_t rows : {1, 7, 131}) {
    for (const int64_t tiles : {1, 2, 4, 130, 1000}) {
      const SwiGlu mlp(12, 30);
      const at::Tensor x = torch::randn({1, rows, 12}).requires_grad_();
      const at::Tensor dy = torch::randn({1, rows, 12});
      const at::Tensor y = mlp.body()(x);
      y.backward(dy);
      std::vector<at::Tensor> expected{x.grad()};
      x.mutable_grad() = at::Tensor();
      for (const at::Tensor& p : mlp.parameters()) {
        expected.push_back(p.grad());
        p.mutable_grad() = at::Tensor();
      }
      const at::Tensor tiled = RecomputeTiled(mlp.body(), x, mlp.parameters(), tiles);
      tiled.backward(dy);
      SCOPED_TRACE(::testing::Message() << rows << " rows, " << tiles << " tiles");
      ExpectClose(tiled, y, 1e-6, "y");
      ExpectClose(x.grad(), expected[0], 1e-5, "dx");
      for (size_t i = 0; i < 3; ++i) {
        ExpectClose(mlp.parameters()[i].grad(), expected[i + 1], 1e-5, "dW");
      }
    }
  }
}

TEST(Recompute, GoesBackwardTwiceThroughOneForward) {
  const SwiGlu mlp(6, 10);
  const at::Tensor x = torch::randn({9, 6}).requires_grad_();
  const at::Tensor y = RecomputeTiled(mlp.body(), x, mlp.parameters(), 2).sum();
  y.backward({}, /*retain_graph=*/true);
  const at::Tensor once = mlp.gate.grad().clone();
  y.backward();
  ExpectClose(mlp.gate.grad(), 2 * once, 1e-6, "dW");
}

TEST(Recompute, OfAnInputWithoutGradientStillTrainsTheParameters) {
  const SwiGlu mlp(6, 10);
  const at::Tensor x = torch::randn({9, 6});
  RecomputeTiled(mlp.body(), x, mlp.parameters(), 3).sum().backward();
  const at::Tensor ours = mlp.up.grad().clone();
  mlp.up.mutable_grad() = at::Tensor();
  mlp.body()(x).sum().backward();
  ExpectClose(ours, mlp.up.grad(), 1e-5, "dW");
}

// Which language model, in which of the ways to save; shared by the tests below.
struct Way {
  const char* name;
  MemoryConfig memory;
};

std::vector<Way> Ways() {
  return {
      {"checkpoint", {.activations = "checkpoint"}},
      {"mlp", {.mlp_chunks = 3}},
      {"head fused", {.head_chunks = 5}},
      {"head recompute", {.head_chunks = 5, .head_form = "recompute"}},
      {"all", {.activations = "checkpoint", .mlp_chunks = 3, .head_chunks = 5}},
      {"auto",
       {.activations = "checkpoint", .mlp_chunks = 0, .head_chunks = 0, .head_form = "recompute"}}};
}

std::shared_ptr<LanguageModel> Make(const std::string& name, const MemoryConfig& memory) {
  const ModelInput input{.vocab = 257, .context = 37};
  auto model =
      name == "gpt"
          ? CreateGpt({.layers = 2, .width = 24, .heads = 3}, input, 4, memory)
          : CreateLlama(
                {.layers = 2, .width = 24, .heads = 3, .kv_heads = 1, .tie = name == "llama tied"},
                input, 4, memory);
  TW_CHECK_OK(model);
  return *model;
}

struct Batch {
  at::Tensor ids, labels;
  explicit Batch(uint64_t seed) {
    torch::manual_seed(seed);
    ids = torch::randint(257, {3, 37}, torch::kLong);
    labels = torch::randint(257, {3, 37}, torch::kLong);
    labels.view(-1).slice(0, 0, 111, 17).fill_(-100);
    labels[1].narrow(0, 3, 30).fill_(-100);
  }
};

std::vector<at::Tensor> Gradients(LanguageModel& model, const std::vector<Batch>& batches,
                                  double* loss, bool bf16 = false) {
  *loss = 0;
  for (const Batch& batch : batches) {
    at::Tensor value;
    {
      const PrecisionScope precision(bf16, at::kCPU);
      value = model.Loss(batch.ids, batch.labels);
    }
    *loss += value.item<double>();
    (value / static_cast<double>(batches.size())).backward();
  }
  std::vector<at::Tensor> out;
  for (const auto& item : model.named_parameters()) out.push_back(item.value().grad());
  return out;
}

TEST(Savings, LeaveLossAndGradientsWhatTheyWere) {
  const std::vector<Batch> batches{Batch(1), Batch(2)};  // two micro-batches of a step
  for (const char* name : {"gpt", "llama", "llama tied"}) {
    double plain_loss = 0, loss = 0;
    const auto plain = Gradients(*Make(name, {}), batches, &plain_loss);
    for (const Way& way : Ways()) {
      SCOPED_TRACE(std::string(name) + ", " + way.name);
      const auto model = Make(name, way.memory);
      const auto ours = Gradients(*model, batches, &loss);
      EXPECT_NEAR(loss, plain_loss, 1e-6 * plain_loss);
      for (size_t i = 0; i < plain.size(); ++i) {
        ExpectClose(ours[i], plain[i], 1e-5, model->named_parameters()[i].key());
      }
    }
  }
}

TEST(Savings, CheckpointKeepsEveryBit) {
  const std::vector<Batch> batches{Batch(1)};
  for (const char* name : {"gpt", "llama"}) {
    double plain_loss = 0, loss = 0;
    const auto plain = Gradients(*Make(name, {}), batches, &plain_loss);
    const auto ours = Gradients(*Make(name, {.activations = "checkpoint"}), batches, &loss);
    EXPECT_EQ(loss, plain_loss);
    for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(torch::equal(ours[i], plain[i])) << i;
  }
}

TEST(Savings, UnderBf16EveryParameterGetsItsGradient) {
  const std::vector<Batch> batches{Batch(1)};
  for (const char* name : {"gpt", "llama", "llama tied"}) {
    double exact_loss = 0, plain_loss = 0, loss = 0;
    const auto exact = Gradients(*Make(name, {}), batches, &exact_loss);
    const auto plain = Gradients(*Make(name, {}), batches, &plain_loss, true);
    EXPECT_NE(plain_loss, exact_loss);
    for (const Way& way : Ways()) {
      const auto model = Make(name, way.memory);
      const auto ours = Gradients(*model, batches, &loss, true);
      EXPECT_NEAR(loss, plain_loss, 2e-3 * plain_loss);
      for (size_t i = 0; i < plain.size(); ++i) {
        const std::string what =
            std::string(name) + ", " + way.name + ": " + model->named_parameters()[i].key();
        ASSERT_TRUE(ours[i].defined()) << what;
        const double far = (plain[i] - exact[i]).norm().item<double>();
        EXPECT_LE((ours[i] - exact[i]).norm().item<double>(),
                  2 * far + 1e-3 * exact[i].norm().item<double>())
            << what;
      }
    }
  }
}

TEST(Savings, EvaluationGivesTheSameLoss) {
  const Batch batch(7);
  const torch::NoGradGuard no_grad;
  const double plain = Make("gpt", {})->Loss(batch.ids, batch.labels).item<double>();
  for (const Way& way : Ways()) {
    const at::Tensor loss = Make("gpt", way.memory)->Loss(batch.ids, batch.labels);
    EXPECT_NEAR(loss.item<double>(), plain, 1e-6 * plain) << way.name;
  }
}

struct Counter : torch::autograd::PostAccumulateGradHook {
  explicit Counter(int* count) : count(count) {}
  void operator()(const at::Tensor&) override { ++*count; }
  int* count;
};

TEST(Savings, AHookFiresOnceAParameterAndBackward) {
  const Batch batch(1);
  for (const char* name : {"gpt", "llama", "llama tied"}) {
    for (const Way& way : Ways()) {
      const auto model = Make(name, way.memory);
      std::vector<int> fired(model->parameters().size());
      for (size_t i = 0; i < fired.size(); ++i) {
        at::Tensor parameter = model->parameters()[i];
        parameter.mutable_grad() = torch::zeros_like(parameter);
        torch::autograd::impl::set_post_acc_grad_hooks(parameter,
                                                       std::make_unique<Counter>(&fired[i]));
      }
      model->Loss(batch.ids, batch.labels).backward();
      EXPECT_THAT(fired, ::testing::Each(1)) << name << ", " << way.name;
    }
  }
}

// Exact bytes, the same on every machine: four SwiGLU layers as in a llama of width 64.
TEST(Savings, TiledMlpTakesAFractionOfThePlainPeak) {
  InstallTensorMemoryCounter();
  const SwiGlu mlp(64, 224);
  const at::Tensor x = torch::randn({2048, 64}).requires_grad_();
  for (const at::Tensor& p : mlp.parameters()) p.mutable_grad() = torch::zeros_like(p);
  const auto extra = [&](const TensorFn& layer) {
    x.mutable_grad() = at::Tensor();
    const int64_t before = LiveTensorBytes();
    ResetPeakTensorBytes();
    at::Tensor y = x;
    for (int i = 0; i < 4; ++i) y = y + layer(y);
    y.sum().backward();
    return static_cast<double>(PeakTensorBytes() - before);
  };
  const double plain = extra(mlp.body());
  const double tiled = extra(
      [&](const at::Tensor& y) { return RecomputeTiled(mlp.body(), y, mlp.parameters(), 4); });
  EXPECT_LE(tiled, 0.45 * plain) << tiled << " of " << plain;
}

TEST(Savings, AModelThatHasNoneRefusesThem) {
  const auto factory = Registry<ModelFactory>::Get().Make(ConfigSection{}, "cnn");
  ASSERT_TRUE(factory.ok());
  const auto model =
      (*factory)->Create({.kind = InputKind::kImage}, 1, {.mlp_chunks = 1, .head_chunks = 8});
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(FaultOf(model.status()), Fault::kConfig);
  EXPECT_THAT(std::string(model.status().message()), ::testing::HasSubstr("head_chunks = 8"));
}

}  // namespace
}  // namespace tw
