#include "core/nn/head_loss.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/engine/tensor_memory.h"
#include "core/nn/precision.h"

namespace tw {
namespace {

struct Shape {
  int64_t rows, width, vocab;
};

struct Case {
  at::Tensor hidden, weight, labels;

  Case(const Shape& s, int64_t ignored_every = 0) {
    at::manual_seed(3);
    hidden = at::randn({s.rows, s.width}).requires_grad_();
    weight = (at::randn({s.vocab, s.width}) * 0.3).requires_grad_();
    labels = at::randint(s.vocab, {s.rows}, at::kLong);
    if (ignored_every) {
      for (int64_t i = 0; i < s.rows; i += ignored_every) labels[i] = kIgnoredLabel;
    }
  }
};

struct Outcome {
  double loss;
  at::Tensor dh, dw;
};

// The gradients are those of `upstream` times the loss.
Outcome GradientsOf(const Case& c, double upstream,
                    const std::function<at::Tensor(const Case&)>& loss) {
  c.hidden.mutable_grad() = at::Tensor();
  c.weight.mutable_grad() = at::Tensor();
  const at::Tensor value = loss(c);
  (value * upstream).backward();
  return {value.item<double>(), c.hidden.grad(), c.weight.grad()};
}

at::Tensor Plain(const Case& c) {
  return at::cross_entropy_loss(at::linear(c.hidden, c.weight).to(at::kFloat), c.labels);
}

void ExpectClose(const at::Tensor& a, const at::Tensor& b, double rtol, double atol) {
  ASSERT_EQ(a.sizes(), b.sizes());
  EXPECT_TRUE(at::allclose(a, b, rtol, atol))
      << "largest difference " << (a - b).abs().max().item<double>() << " beside "
      << b.abs().max().item<double>();
}

void ExpectPlain(const Case& c, int64_t chunks, double upstream = 1) {
  const Outcome plain = GradientsOf(c, upstream, Plain);
  for (const bool recompute : {false, true}) {
    SCOPED_TRACE(::testing::Message() << chunks << (recompute ? " recomputed" : " fused"));
    const Outcome ours = GradientsOf(c, upstream, [&](const Case& k) {
      return HeadLoss(k.hidden, k.weight, k.labels, {chunks, recompute});
    });
    EXPECT_NEAR(ours.loss, plain.loss, 1e-6 * std::abs(plain.loss));
    ExpectClose(ours.dh, plain.dh, 1e-5, 1e-5 * plain.dh.abs().max().item<double>());
    ExpectClose(ours.dw, plain.dw, 1e-5, 1e-5 * plain.dw.abs().max().item<double>());
  }
}

TEST(HeadLoss, EqualsThePlainLossWhateverThePieces) {
  const Case c({131, 24, 1031});
  for (const int64_t chunks : {1, 2, 8, 130, 131, 1000}) ExpectPlain(c, chunks);
}

TEST(HeadLoss, SizesThatDivideByNothing) {
  for (const Shape& shape : {Shape{1, 1, 1}, {1, 3, 2}, {7, 5, 513}, {13, 17, 511}, {64, 8, 512}}) {
    ExpectPlain(Case(shape), 3);
  }
}

TEST(HeadLoss, IgnoredLabelsTakeNoPart) {
  ExpectPlain(Case({131, 24, 700}, 17), 8);
  Case c({40, 8, 50});
  c.labels.narrow(0, 10, 20).fill_(kIgnoredLabel);  // whole pieces of 4 and of 8
  for (const int64_t chunks : {5, 10}) ExpectPlain(c, chunks);
  c.labels.narrow(0, 30, 10).fill_(kIgnoredLabel);  // the last piece too
  for (const int64_t chunks : {1, 4, 10}) ExpectPlain(c, chunks);
}

TEST(HeadLoss, OfNoLabelIsNanWithoutAGradientAsInPyTorch) {
  Case c({9, 4, 11});
  c.labels.fill_(kIgnoredLabel);
  const Outcome plain = GradientsOf(c, 1, Plain);
  ASSERT_TRUE(std::isnan(plain.loss));
  for (const bool recompute : {false, true}) {
    const Outcome ours = GradientsOf(c, 1, [&](const Case& k) {
      return HeadLoss(k.hidden, k.weight, k.labels, {2, recompute});
    });
    EXPECT_TRUE(std::isnan(ours.loss));
    EXPECT_TRUE(at::equal(ours.dh, plain.dh));
    EXPECT_TRUE(at::equal(ours.dw, plain.dw));
  }
}

TEST(HeadLoss, PassesOnTheGradientFromAbove) { ExpectPlain(Case({33, 6, 70}), 4, 0.25); }

TEST(HeadLoss, AccumulatesIntoAGradientThatIsThere) {
  const Case c({50, 8, 90});
  const Outcome plain = GradientsOf(c, 1, Plain);
  for (const bool recompute : {false, true}) {
    GradientsOf(c, 1, Plain);
    for (int micro = 0; micro < 2; ++micro) {
      HeadLoss(c.hidden, c.weight, c.labels, {4, recompute}).backward();
    }
    ExpectClose(c.weight.grad(), 3 * plain.dw, 1e-5, 1e-7);
  }
}

TEST(HeadLoss, OnlyWhatRequiresAGradientGetsOne) {
  Case c({20, 8, 30});
  const Outcome plain = GradientsOf(c, 1, Plain);
  for (const bool recompute : {false, true}) {
    const at::Tensor hidden = c.hidden.detach(), weight = c.weight.detach();
    c.weight.mutable_grad() = at::Tensor();
    c.hidden.mutable_grad() = at::Tensor();
    HeadLoss(hidden, c.weight, c.labels, {3, recompute}).backward();
    ExpectClose(c.weight.grad(), plain.dw, 1e-5, 1e-7);
    HeadLoss(c.hidden, weight, c.labels, {3, recompute}).backward();
    ExpectClose(c.hidden.grad(), plain.dh, 1e-5, 1e-7);
  }
}

TEST(HeadLoss, WithoutAGraphGivesTheSameLoss) {
  const Case c({77, 8, 600}, 5);
  const double with = HeadLoss(c.hidden, c.weight, c.labels, {4}).item<double>();
  const at::NoGradGuard no_grad;
  const at::Tensor without = HeadLoss(c.hidden, c.weight, c.labels, {4});
  EXPECT_NEAR(without.item<double>(), with, 1e-6 * with);
  EXPECT_FALSE(without.requires_grad());
}

TEST(HeadLoss, RecomputeGoesBackwardTwiceAndFusedSaysThatItCannot) {
  const Case c({20, 8, 30});
  const Outcome plain = GradientsOf(c, 1, Plain);
  c.weight.mutable_grad() = at::Tensor();
  at::Tensor loss = HeadLoss(c.hidden, c.weight, c.labels, {3, true});
  loss.backward({}, /*retain_graph=*/true);
  loss.backward();
  ExpectClose(c.weight.grad(), 2 * plain.dw, 1e-5, 1e-7);
  loss = HeadLoss(c.hidden, c.weight, c.labels, {3, false});
  loss.backward({}, /*retain_graph=*/true);
  EXPECT_THROW(loss.backward(), c10::Error);
}

TEST(HeadLoss, RefusesALabelThatIsNoClass) {
  Case c({5, 4, 6});
  for (const int64_t bad : {int64_t{6}, int64_t{-1}}) {
    c.labels[3] = bad;
    EXPECT_THROW(HeadLoss(c.hidden, c.weight, c.labels, {2}), c10::Error);
  }
}

TEST(HeadLoss, UnderBf16FollowsThePlainLossUnderBf16) {
  const Case c({131, 32, 700}, 17);
  const auto in_bf16 = [](const std::function<at::Tensor(const Case&)>& loss) {
    return [loss](const Case& k) {
      const PrecisionScope precision(true, at::kCPU);
      return loss(k);
    };
  };
  const Outcome exact = GradientsOf(c, 1, Plain), plain = GradientsOf(c, 1, in_bf16(Plain));
  const auto distance = [](const at::Tensor& a, const at::Tensor& b) {
    return ((a - b).norm() / b.norm()).item<double>();
  };
  for (const bool recompute : {false, true}) {
    const Outcome ours =
        GradientsOf(c, 1, in_bf16([&](const Case& k) {
                      return HeadLoss(k.hidden, k.weight, k.labels, {4, recompute});
                    }));
    EXPECT_NEAR(ours.loss, plain.loss, 2e-3 * plain.loss);
    EXPECT_LE(distance(ours.dh, exact.dh), 1.2 * distance(plain.dh, exact.dh));
    EXPECT_LE(distance(ours.dw, exact.dw), 1.2 * distance(plain.dw, exact.dw));
    EXPECT_GT(distance(ours.dw, exact.dw), 0);
  }
}

// The weight's gradient is added up in fp32 and rounded once.
TEST(HeadLoss, ABf16WeightHasTheGradientOfAnFp32OneRounded) {
  const Case wide({131, 32, 700}, 17);
  Case narrow({131, 32, 700}, 17);
  narrow.weight = wide.weight.detach().to(at::kBFloat16).requires_grad_();
  wide.weight.detach().copy_(narrow.weight.detach());
  for (const bool recompute : {false, true}) {
    const auto loss = [&](const Case& k) {
      const PrecisionScope precision(true, at::kCPU);
      return HeadLoss(k.hidden, k.weight, k.labels, {4, recompute});
    };
    const Outcome expected = GradientsOf(wide, 1, loss), ours = GradientsOf(narrow, 1, loss);
    EXPECT_EQ(ours.loss, expected.loss);
    EXPECT_TRUE(at::equal(ours.dh, expected.dh));
    ASSERT_EQ(ours.dw.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(at::equal(ours.dw, expected.dw.to(at::kBFloat16)));
  }
}

// Of the same numbers: products have bf16 factors as under autocast, and the gradient of a bf16
// hidden is summed over blocks of the vocabulary in fp32.
TEST(HeadLoss, OfABf16HiddenIsThatUnderAutocastRounded) {
  for (const Shape& shape : {Shape{131, 32, 700}, {1, 1, 3}, {7, 5, 40 * kVocabBlock + 1}}) {
    Case wide(shape, 17), narrow(shape, 17);
    narrow.hidden = narrow.hidden.detach().to(at::kBFloat16).requires_grad_();
    wide.hidden.detach().copy_(narrow.hidden.detach());
    for (const double upstream : {1.0, 0.25}) {
      for (const bool recompute : {false, true}) {
        const auto loss = [&](const Case& k) {
          return HeadLoss(k.hidden, k.weight, k.labels, {4, recompute});
        };
        const Outcome ours = GradientsOf(narrow, upstream, loss);
        const Outcome expected = GradientsOf(wide, upstream, [&](const Case& k) {
          const PrecisionScope precision(true, at::kCPU);
          return loss(k);
        });
        if (shape.rows > 1) {  // one row: it is ignored
          EXPECT_EQ(ours.loss, expected.loss);
        }
        ASSERT_EQ(ours.dh.scalar_type(), at::kBFloat16);
        EXPECT_TRUE(at::equal(ours.dh, expected.dh.to(at::kBFloat16)));
        EXPECT_TRUE(at::equal(ours.dw, expected.dw));
      }
    }
  }
}

TEST(HeadLoss, ThreadsDoNotChangeTheLoss) {
  const Case c({300, 16, 900});
  const int before = at::get_num_threads();
  std::vector<double> losses;
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    losses.push_back(HeadLoss(c.hidden, c.weight, c.labels, {3}).item<double>());
  }
  at::set_num_threads(before);
  EXPECT_NEAR(losses[0], losses[1], 1e-6 * losses[0]);
}

// The shape of MEMORY's gate at a quarter of its tokens: exact bytes, the same on every machine.
TEST(HeadLoss, ExtraPeakIsAFractionOfThePlainOne) {
  InstallTensorMemoryCounter();
  const Case c({1024, 64, 32000});
  c.weight.mutable_grad() = at::zeros_like(c.weight);
  const auto extra = [&](const std::function<at::Tensor()>& loss) {
    c.hidden.mutable_grad() = at::Tensor();
    const int64_t before = LiveTensorBytes();
    ResetPeakTensorBytes();
    loss().backward();
    return static_cast<double>(PeakTensorBytes() - before);
  };
  const double plain = extra([&] { return Plain(c); });
  const double gradient = static_cast<double>(c.weight.nbytes() + c.hidden.nbytes());
  EXPECT_GT(plain, 3.0 * 1024 * 32000 * 4);
  for (const int64_t chunks : {8, 16}) {
    const double fused = extra([&] {
      return HeadLoss(c.hidden, c.weight, c.labels, {chunks, false});
    });
    EXPECT_LE(fused, gradient + 1024.0 / static_cast<double>(chunks) * 32000 * 4 + 1e5) << chunks;
    const double recomputed = extra([&] {
      return HeadLoss(c.hidden, c.weight, c.labels, {chunks, true});
    });
    EXPECT_LE(recomputed, gradient + 1024.0 / static_cast<double>(chunks) * 512 * 4 + 1e5);
    EXPECT_LE(recomputed, plain / 40);
  }
}

}  // namespace
}  // namespace tw
