// CompAct's projection on its own: what it estimates and how well, from P alone.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/api/activation_codec.h"
#include "core/base/rng.h"

namespace tw {
namespace {

std::unique_ptr<ActivationCodec> Make(double rank, int64_t gap = 50, double scale = 1) {
  ConfigSection section;
  section.Set("compact_rank", rank);
  section.Set("compact_gap", gap);
  section.Set("compact_scale", scale);
  auto made = Registry<ActivationCodec>::Get().Find("compact")->make(section);
  TW_CHECK_OK(made);
  return std::move(made).value();
}

// P [n, r] by the codec's own Pack: the rows of the identity.
at::Tensor Projection(const ActivationCodec& codec, int64_t n, const InputKey& key) {
  return codec.Pack(at::eye(n), key)[0];
}

// The estimate of a gradient G [m, n] from its sketch: Expand of G P into zeros.
at::Tensor Estimate(const ActivationCodec& codec, const at::Tensor& sketch, int64_t n,
                    const InputKey& key) {
  at::Tensor value = at::zeros({sketch.size(0), n});
  const at::Tensor update = sketch.contiguous();
  codec.Expand({value.data_ptr(), DType::kF32, value.numel()}, n, 1,
               {update.data_ptr(), DType::kF32, update.numel()}, key);
  return value;
}

at::Tensor Gradient(int64_t m, int64_t n) {
  at::Tensor g = at::empty({m, n});
  for (int64_t i = 0; i < g.numel(); ++i) {
    g.data_ptr<float>()[i] = RngStream{5}.Uniform(static_cast<uint64_t>(i)) - 0.5f;
  }
  return g;
}

TEST(Compact, TheSquaredErrorIsNPlusOneOverR) {
  constexpr int64_t n = 256, m = 16, seeds = 400;
  const at::Tensor g = Gradient(m, n);
  for (const auto& [rank, r] : {std::pair{0.5, 128}, {0.25, 64}, {0.125, 32}}) {
    const auto codec = Make(rank);
    ASSERT_EQ(codec->GradientColumns(n), r);
    double error = 0, cosine = 0;
    at::Tensor mean = at::zeros({m, n});
    for (uint64_t seed = 1; seed <= seeds; ++seed) {
      const InputKey key{seed, 0, 0};
      const at::Tensor estimate = Estimate(*codec, g.mm(Projection(*codec, n, key)), n, key);
      error += (estimate - g).square().sum().item<double>() / seeds;
      cosine += (estimate * g).sum().item<double>() /
                (estimate.norm().item<double>() * g.norm().item<double>()) / seeds;
      mean += estimate / static_cast<double>(seeds);
    }
    const double norm = g.square().sum().item<double>(), theory = (n + 1.0) / r;
    EXPECT_NEAR(error / norm / theory, 1, 0.01) << rank;
    EXPECT_NEAR(cosine, 1 / std::sqrt(1 + theory), 0.01) << rank;
    const double bias = (mean - g).norm().item<double>() / std::sqrt(norm);
    EXPECT_NEAR(bias, std::sqrt(theory / seeds), 0.05 * std::sqrt(theory / seeds)) << rank;
  }
}

TEST(Compact, TheSketchHasTheGradientsSquaredNormOnAverage) {
  constexpr int64_t n = 96, seeds = 400;
  const at::Tensor g = Gradient(8, n);
  const auto codec = Make(0.25);
  double squares = 0;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    squares += g.mm(Projection(*codec, n, {seed, 0, 0})).square().sum().item<double>() / seeds;
  }
  // 5 standard errors of a mean of 400 sums of 24 * 8 squares that share 24 columns.
  EXPECT_NEAR(squares / g.square().sum().item<double>(), 1, 5 * std::sqrt(2.0 / 24 / seeds));
}

TEST(Compact, OneKeyIsOneProjectionWhateverTheThreadsAndTheSplit) {
  for (const int64_t n : {1, 63, 64, 65, 200}) {
    const auto codec = Make(0.3);
    const int64_t r = codec->GradientColumns(n);
    const InputKey key{7, 120, 3};
    const at::Tensor p = Projection(*codec, n, key), update = Gradient(37, r);
    ASSERT_EQ(p.sizes(), (std::vector<int64_t>{n, r}));
    // U P^T through Expand, and P itself: the same numbers.
    EXPECT_TRUE(at::equal(Estimate(*codec, at::eye(r), n, key), p.t())) << n;
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    const at::Tensor one = Estimate(*codec, update, n, key);
    at::set_num_threads(2);
    EXPECT_TRUE(at::equal(Projection(*codec, n, key), p)) << n;
    EXPECT_TRUE(at::equal(Estimate(*codec, update, n, key), one)) << n;
    at::set_num_threads(threads);
    EXPECT_TRUE(at::allclose(one, update.mm(p.t()), 1e-4, 1e-5)) << n;
  }
}

TEST(Compact, TheProjectionChangesWithSeedInputAndEveryGapSteps) {
  const auto codec = Make(0.5, 10);
  const at::Tensor p = Projection(*codec, 64, {1, 0, 0});
  EXPECT_TRUE(at::equal(Projection(*codec, 64, {1, 9, 0}), p));
  for (const InputKey& key : {InputKey{1, 10, 0}, {2, 0, 0}, {1, 0, 1}}) {
    EXPECT_LT((Projection(*codec, 64, key) * p).sum().abs().item<double>() /
                  p.square().sum().item<double>(),
              0.2);
  }
}

TEST(Compact, ExpandKeepsAndScales) {
  const auto codec = Make(0.5, 50, 0.25);
  const InputKey key{1, 0, 0};
  const at::Tensor p = Projection(*codec, 6, key), update = Gradient(2, 3), before = Gradient(2, 6);
  at::Tensor value = before.clone();
  codec->Expand({value.data_ptr(), DType::kF32, 12}, 6, 0.5, {update.data_ptr(), DType::kF32, 6},
                key);
  EXPECT_TRUE(at::allclose(value, 0.5 * before + 0.25 * update.mm(p.t()), 1e-5, 1e-6));
}

TEST(Compact, WideInputsGoInTiles) {
  const auto codec = Make(0.5);  // r = 600: a strip of 64 columns is over half a tile
  const at::Tensor x = Gradient(3, 1200), p = Projection(*codec, 1200, {1, 0, 0});
  EXPECT_TRUE(at::allclose(codec->Pack(x, {1, 0, 0})[0], x.mm(p), 1e-3, 1e-4));
}

TEST(Compact, KeepsOneColumnAtLeast) { EXPECT_EQ(Make(0.01)->GradientColumns(8), 1); }

TEST(Int8Activation, TheWeightGradientIsThatOfTheRoundedInput) {
  auto made = Registry<ActivationCodec>::Get().Find("int8")->make({});
  TW_CHECK_OK(made);
  const ActivationCodec& codec = **made;
  for (const int64_t n : {1, 100, 128, 300}) {
    const at::Tensor x = Gradient(700, n), dy = Gradient(700, 5);
    const auto packed = codec.Pack(x, {});
    EXPECT_EQ(packed[0].nbytes() + packed[1].nbytes(),
              static_cast<size_t>(700 * (n + 4 * ((n + 127) / 128))));
    const at::Tensor rounded =
        packed[0].to(at::kFloat) * packed[1].repeat_interleave(128, 1).narrow(1, 0, n);
    EXPECT_LE((rounded - x).abs().max().item<double>(), 0.5001 * 0.5 / 127);
    EXPECT_TRUE(at::allclose(codec.WeightGradient(packed, n, dy), dy.t().mm(rounded), 1e-4, 1e-4));
    EXPECT_EQ(codec.GradientColumns(n), n);
  }
  at::Tensor bad = Gradient(2, 200);
  bad[1][150] = NAN;
  const at::Tensor gradient = codec.WeightGradient(codec.Pack(bad, {}), 200, at::ones({2, 3}));
  EXPECT_TRUE(gradient.narrow(1, 0, 128).isfinite().all().item<bool>());
  EXPECT_TRUE(gradient.narrow(1, 128, 72).isnan().all().item<bool>());
}

}  // namespace
}  // namespace tw
