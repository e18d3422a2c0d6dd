// Layers of bf16: what they return, and gradients, beside fp32 ones of the same numbers.
#include "core/nn/layers.h"

#include <gtest/gtest.h>

#include "core/nn/init.h"
#include "core/nn/linear_input.h"

namespace tw {
namespace {

at::Tensor Drawn(at::IntArrayRef shape, const std::string& name, double scale = 1) {
  const at::Tensor out = torch::empty(shape);
  InitNormal(5, name, scale, out);
  return out;
}

double Distance(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor a = got.to(at::kDouble), b = want.to(at::kDouble);
  return ((a - b).norm() / (b.norm() + 1e-30)).item<double>();
}

constexpr double kHalfStep = 1.0 / 256;  // of bf16, relative

// y, dx and the parameters' gradients, of a layer and an x.
struct Outcome {
  at::Tensor y, dx;
  std::vector<at::Tensor> gradients;
};
template <class Layer>
Outcome OutcomeOf(Layer& layer, const at::Tensor& x, const at::Tensor& dy) {
  layer.zero_grad();
  const at::Tensor leaf = x.detach().clone().requires_grad_();
  Outcome out;
  out.y = layer.Forward(leaf);
  out.y.backward(dy.to(out.y.scalar_type()));
  out.dx = leaf.grad();
  for (const at::Tensor& p : layer.parameters()) out.gradients.push_back(p.grad().clone());
  return out;
}

template <class Layer>
void ExpectNormOfBf16(Layer& layer, at::IntArrayRef shape) {
  for (at::Tensor& p : layer.parameters()) {
    p.detach().copy_(Drawn(p.sizes(), "p" + std::to_string(p.dim()), 0.3) + 1);
  }
  const at::Tensor x = Drawn(shape, "x", 3).to(at::kBFloat16),
                   dy = Drawn(shape, "dy").to(at::kBFloat16);
  x.select(0, 0).zero_();  // a row without variance
  const Outcome got = OutcomeOf(layer, x, dy), want = OutcomeOf(layer, x.to(at::kFloat), dy);
  ASSERT_EQ(got.y.scalar_type(), at::kBFloat16);
  ASSERT_EQ(got.dx.scalar_type(), at::kBFloat16);
  EXPECT_LE(Distance(got.y, want.y), kHalfStep);
  EXPECT_LE(Distance(got.dx, want.dx), kHalfStep);
  for (size_t i = 0; i < want.gradients.size(); ++i) {
    EXPECT_EQ(got.gradients[i].scalar_type(), at::kFloat);
    EXPECT_LE(Distance(got.gradients[i], want.gradients[i]), 1e-5) << i;
  }
}

TEST(NormsOfBf16, AreFp32OnesRoundedOnce) {
  for (const auto& shape : std::vector<std::vector<int64_t>>{
           {1, 1}, {2, 7}, {3, 5, 64}, {2, 33, 130}, {65, 1000}, {4000, 24}}) {
    SCOPED_TRACE(testing::Message() << at::IntArrayRef(shape));
    RmsNorm rms(shape.back(), 1e-6);
    ExpectNormOfBf16(rms, shape);
    LayerNorm layer(shape.back());
    ExpectNormOfBf16(layer, shape);
  }
}

TEST(NormsOfBf16, RmsNormOfOneThatNeedsNoGradient) {
  RmsNorm norm(9, 1e-6);
  const at::Tensor x = Drawn({4, 9}, "x").to(at::kBFloat16);
  norm.Forward(x).sum().backward();
  EXPECT_EQ(norm.weight.grad().sizes(), norm.weight.sizes());
  const at::Tensor leaf = x.clone().requires_grad_();
  norm.weight.requires_grad_(false);
  norm.Forward(leaf).sum().backward();
  EXPECT_EQ(leaf.grad().sizes(), x.sizes());
  const torch::NoGradGuard no_grad;
  EXPECT_FALSE(norm.Forward(leaf).requires_grad());
}

TEST(NormsOfBf16, RmsNormPassesOnWhatIsNotFinite) {
  RmsNorm norm(3, 1e-6);
  at::Tensor x = Drawn({2, 3}, "x").to(at::kBFloat16);
  x[1][2] = std::numeric_limits<float>::infinity();
  const Outcome got = OutcomeOf(norm, x, torch::ones({2, 3}));
  EXPECT_TRUE(got.y[0].isfinite().all().item<bool>());
  EXPECT_TRUE(got.dx[0].isfinite().all().item<bool>());
  EXPECT_FALSE(got.dx[1].isfinite().all().item<bool>());
  EXPECT_FALSE(got.gradients[0].isfinite().all().item<bool>());
}

// The bias stays fp32, and so does its gradient.
TEST(LinearOfBf16, MultipliesItsWeightAsItIs) {
  for (const bool with_bias : {true, false}) {
    Linear wide(33, 17, with_bias), narrow(33, 17, with_bias);
    const at::Tensor w = Drawn({17, 33}, "w", 0.2).to(at::kBFloat16);
    wide.weight.detach().copy_(w);
    narrow.weight.set_data(w.clone());
    for (const Linear* layer : {&wide, &narrow}) {
      if (with_bias) layer->bias.detach().copy_(Drawn({17}, "b").to(at::kBFloat16));
    }
    const at::Tensor x = Drawn({2, 1501, 33}, "x").to(at::kBFloat16),
                     dy = Drawn({2, 1501, 17}, "dy").to(at::kBFloat16);
    const Outcome got = OutcomeOf(narrow, x, dy), want = OutcomeOf(wide, x.to(at::kFloat), dy);
    ASSERT_EQ(got.y.scalar_type(), at::kBFloat16);
    EXPECT_LE(Distance(got.y, want.y), kHalfStep);
    EXPECT_LE(Distance(got.dx, want.dx), kHalfStep);
    EXPECT_EQ(got.gradients[0].scalar_type(), at::kBFloat16);
    EXPECT_LE(Distance(got.gradients[0], want.gradients[0]), kHalfStep);
    if (with_bias) {
      EXPECT_EQ(got.gradients[1].scalar_type(), at::kFloat);
      EXPECT_LE(Distance(got.gradients[1], want.gradients[1]), kHalfStep);
    }
  }
}

// y, dx and the bias's gradient to the last bit those of a layer that keeps its input.
TEST(LinearOfBf16, TakesACodecOfWholeGradients) {
  auto codec = Registry<ActivationCodec>::Get().Find("int8")->make(ConfigSection{});
  TW_CHECK_OK(codec);
  LinearInputs inputs(std::move(*codec), 1);
  Linear layer(130, 6);
  layer.weight.set_data(Drawn({6, 130}, "w", 0.2).to(at::kBFloat16));
  const at::Tensor x = Drawn({11, 130}, "x").to(at::kBFloat16),
                   dy = Drawn({11, 6}, "dy").to(at::kBFloat16);
  const Outcome want = OutcomeOf(layer, x, dy);
  layer.KeepInputAs(inputs.Make(130));
  const Outcome got = OutcomeOf(layer, x, dy);
  EXPECT_TRUE(at::equal(got.y, want.y));
  EXPECT_TRUE(at::equal(got.dx, want.dx));
  EXPECT_TRUE(at::equal(got.gradients[1], want.gradients[1]));
  EXPECT_EQ(got.gradients[0].scalar_type(), at::kBFloat16);
  EXPECT_LE(Distance(got.gradients[0], want.gradients[0]), 0.02);
}

}  // namespace
}  // namespace tw
