// Linear layers that keep a packed input: what must be exact is exact, and the rest is what the
// codec says.
#include "core/nn/linear_input.h"

#include <gtest/gtest.h>

#include "core/engine/task/model_task.h"
#include "core/nn/init.h"
#include "core/nn/layers.h"
#include "core/nn/model/llama.h"

namespace tw {
namespace {

std::shared_ptr<const ActivationCodec> Codec(const std::string& name, double rank = 0.25) {
  ConfigSection section;
  section.Set("compact_rank", rank);
  section.Set("compact_gap", int64_t{2});
  auto made = Registry<ActivationCodec>::Get().Find(name)->make(section);
  TW_CHECK_OK(made);
  return std::move(made).value();
}

at::Tensor Drawn(at::IntArrayRef shape, const std::string& name) {
  const at::Tensor out = torch::empty(shape);
  InitNormal(3, name, 1.0, out);
  return out;
}

// q, k and v on one input, and the gradients of a loss that weighs their outputs differently.
struct Trio {
  explicit Trio(int64_t in, bool bias) {
    for (const int64_t out : {in, in / 2, in / 2}) {
      layers.push_back(std::make_shared<Linear>(in, out, bias));
      InitNormal(1, "w" + std::to_string(layers.size()), 0.1, layers.back()->weight);
    }
  }
  void Backward(const at::Tensor& x, bool bf16, const std::shared_ptr<const LinearInput>& input) {
    input_grad = at::Tensor();
    outputs.clear();
    for (const auto& layer : layers) layer->zero_grad();
    const at::Tensor leaf = x.clone().requires_grad_();
    std::vector<at::Tensor> terms;
    {
      const PrecisionScope precision(bf16, at::kCPU);
      const PackedInput in = PackInput(input, leaf);
      for (const auto& layer : layers) outputs.push_back(layer->Forward(in));
    }
    at::Tensor loss = torch::zeros({});
    for (size_t i = 0; i < outputs.size(); ++i) {
      loss =
          loss +
          (outputs[i].to(at::kFloat) * Drawn(outputs[i].sizes(), "dy" + std::to_string(i))).sum();
    }
    loss.backward();
    input_grad = leaf.grad();
  }
  std::vector<std::shared_ptr<Linear>> layers;
  std::vector<at::Tensor> outputs;
  at::Tensor input_grad;
};

TEST(LinearInput, OutputsInputGradientsAndBiasGradientsAreThoseOfDenseLayersToTheLastBit) {
  for (const char* name : {"compact", "int8"}) {
    for (const bool bf16 : {false, true}) {
      for (const bool bias : {true, false}) {
        for (const std::vector<int64_t>& shape : {std::vector<int64_t>{2, 33, 48}, {7, 48}}) {
          SCOPED_TRACE(std::string(name) + (bf16 ? " bf16" : " fp32") + (bias ? " bias" : ""));
          const at::Tensor x = Drawn(shape, "x");
          Trio dense(48, bias), kept(48, bias);
          dense.Backward(x, bf16, nullptr);
          const auto input = LinearInputs(Codec(name), 1).Make(48);
          for (const auto& layer : kept.layers) layer->KeepInputAs(input);
          kept.Backward(x, bf16, input);
          EXPECT_TRUE(at::equal(kept.input_grad, dense.input_grad));
          for (size_t i = 0; i < 3; ++i) {
            EXPECT_TRUE(at::equal(kept.outputs[i], dense.outputs[i])) << i;
            if (bias) {
              EXPECT_TRUE(at::equal(kept.layers[i]->bias.grad(), dense.layers[i]->bias.grad()));
            }
          }
        }
      }
    }
  }
}

TEST(LinearInput, TheSketchIsTheDenseGradientTimesTheSharedProjection) {
  const at::Tensor x = Drawn({5, 9, 64}, "x");
  Trio dense(64, true), kept(64, true);
  dense.Backward(x, false, nullptr);
  const auto codec = Codec("compact");
  const auto input = LinearInputs(codec, 1).Make(64);
  for (const auto& layer : kept.layers) layer->KeepInputAs(input);
  kept.Backward(x, false, input);
  const at::Tensor p = codec->Pack(torch::eye(64), {1, 0, 0})[0];
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_NE(kept.layers[i]->sketch(), nullptr);
    EXPECT_FALSE(kept.layers[i]->weight.grad().defined());
    const at::Tensor sketch = kept.layers[i]->sketch()->leaf.grad();
    EXPECT_TRUE(at::allclose(sketch, dense.layers[i]->weight.grad().mm(p), 1e-4, 1e-4)) << i;
  }
}

TEST(LinearInput, Int8GivesTheWeightItsOwnGradient) {
  const at::Tensor x = Drawn({40, 64}, "x");
  Trio dense(64, false), kept(64, false);
  dense.Backward(x, false, nullptr);
  const auto input = LinearInputs(Codec("int8"), 1).Make(64);
  for (const auto& layer : kept.layers) layer->KeepInputAs(input);
  kept.Backward(x, false, input);
  EXPECT_EQ(kept.layers[0]->sketch(), nullptr);
  const at::Tensor exact = dense.layers[0]->weight.grad();
  const double error = (kept.layers[0]->weight.grad() - exact).norm().item<double>();
  EXPECT_GT(error, 0);
  EXPECT_LT(error, 0.01 * exact.norm().item<double>());
}

// Summed over micro-batches, and over ranks, sketches of one step are the sketch of the sum.
TEST(LinearInput, SketchesOfOneStepAddUpAndAnotherGapHasAnotherProjection) {
  LinearInputs inputs(Codec("compact"), 1);
  Linear layer(32, 8, false);
  InitNormal(1, "w", 0.1, layer.weight);
  layer.KeepInputAs(inputs.Make(32));
  const at::Tensor leaf = layer.sketch()->leaf;
  const auto sketch = [&](const at::Tensor& x, uint64_t step) {
    inputs.BeginStep(step);
    layer.Forward(x).square().sum().backward();
    const at::Tensor out = leaf.grad().clone();
    leaf.mutable_grad() = at::Tensor();
    return out;
  };
  const at::Tensor a = Drawn({6, 32}, "a"), b = Drawn({10, 32}, "b");
  const at::Tensor both = sketch(torch::cat({a, b}), 4);
  EXPECT_TRUE(at::allclose(sketch(a, 4) + sketch(b, 4), both, 1e-4, 1e-4));
  EXPECT_TRUE(at::equal(sketch(a, 4), sketch(a, 5)));  // a gap of 2
  EXPECT_FALSE(at::allclose(sketch(a, 4), sketch(a, 6), 0.1, 0.1));
}

TEST(LinearInput, NothingIsPackedWithoutAGraph) {
  const auto input = LinearInputs(Codec("compact"), 1).Make(16);
  const torch::NoGradGuard no_grad;
  EXPECT_TRUE(input->Pack(torch::ones({2, 16})).packed.empty());
}

TEST(LinearInput, CodecsThatKeepTheInputMakeNone) {
  EXPECT_EQ(LinearInputs(Codec("none"), 1).Make(16), nullptr);
  EXPECT_EQ(LinearInputs(nullptr, 1).Make(16), nullptr);
}

TEST(LinearInput, AQuarterRankKeepsAQuarterOfALlamaLayersInputs) {
  LinearInputs inputs(Codec("compact"), 1);
  int64_t kept = 0, dense = 0;
  for (const int64_t features : {256, 256, 896}) {  // q k v, gate up, down
    const at::Tensor x = torch::ones({2, 64, features}, torch::requires_grad());
    const PackedInput in = inputs.Make(features)->Pack(x);
    dense += static_cast<int64_t>(x.nbytes());
    for (const at::Tensor& t : in.packed) kept += static_cast<int64_t>(t.nbytes());
  }
  EXPECT_LE(static_cast<double>(kept), 0.27 * static_cast<double>(dense));
}

// Only the attention output projection and what is no linear layer of a block stay whole.
TEST(LinearInput, LlamaSketchesAllButTheAttentionOutput) {
  auto model = CreateLlama({.layers = 1, .width = 32, .heads = 2}, {.context = 8}, 1);
  TW_CHECK_OK(model);
  TW_CHECK_OK((*model)->KeepInputs(LinearInputs(Codec("compact"), 1)));
  std::vector<std::string> sketched;
  for (const auto& item : (*model)->named_modules()) {
    const auto* linear = item.value()->as<Linear>();
    if (linear && linear->sketch()) sketched.push_back(item.key());
  }
  const std::string layer = "model.layers.0.";
  EXPECT_EQ(sketched,
            (std::vector<std::string>{layer + "self_attn.q_proj", layer + "self_attn.k_proj",
                                      layer + "self_attn.v_proj", layer + "mlp.gate_proj",
                                      layer + "mlp.up_proj", layer + "mlp.down_proj"}));
}

}  // namespace
}  // namespace tw
