// The head's loss on a device is that of the host to rounding, and nothing of it waits.
#include "core/nn/head_loss.h"

#include <ATen/ops/allclose.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/nn/precision.h"
#include "core/nn/torch.h"
#include "tests/core/nn/device/emulated_tensors.h"

namespace tw {
namespace {

struct Shape {
  int64_t rows, width, vocab;
};

struct Case {
  at::Tensor hidden, weight, labels;  // on the host
  double upstream = 1;
  bool bf16 = false;
  HeadLossOptions options = {};

  explicit Case(const Shape& s) {
    torch::manual_seed(3);
    hidden = torch::randn({s.rows, s.width});
    weight = torch::randn({s.vocab, s.width}) * 0.3;
    labels = torch::randint(s.vocab, {s.rows}, at::kLong);
  }
};

struct Outcome {
  at::Tensor loss, dh, dw;
  Outcome OnHost() const { return {loss.cpu(), dh.cpu(), dw.cpu()}; }
};

Outcome GradientsOf(const Case& c, at::Device device) {
  const at::Tensor h = c.hidden.to(device).clone().requires_grad_(),
                   w = c.weight.to(device).clone().requires_grad_();
  at::Tensor loss;
  {
    const PrecisionScope precision(c.bf16, device.type());
    loss = HeadLoss(h, w, c.labels, c.options);
  }
  (loss * c.upstream).backward();
  return {loss.detach(), h.grad(), w.grad()};
}

class DeviceHeadLoss : public testing::Test {
 protected:
  void ExpectTheHosts(Case c, double tolerance = 2e-6) {
    for (const bool recompute : {false, true}) {
      SCOPED_TRACE(recompute ? "recomputed" : "fused");
      c.options.recompute = recompute;
      const Outcome want = GradientsOf(c, at::kCPU);
      const int64_t before = EmulatedTensors::copies_to_host();
      const Outcome device = GradientsOf(c, kEmulatedDevice);
      EXPECT_EQ(EmulatedTensors::copies_to_host(), before) << "something waited";
      const Outcome got = device.OnHost();
      EXPECT_NEAR(got.loss.item<double>(), want.loss.item<double>(),
                  tolerance * want.loss.item<double>());
      ExpectNear(got.dh, want.dh, tolerance);
      ExpectNear(got.dw, want.dw, tolerance);
    }
  }
  static void ExpectNear(const at::Tensor& got, const at::Tensor& want, double tolerance) {
    ASSERT_EQ(got.scalar_type(), want.scalar_type());
    const at::Tensor a = got.to(at::kFloat), b = want.to(at::kFloat);
    const double largest = b.abs().max().item<double>();
    EXPECT_GT(largest, 0);
    EXPECT_TRUE(at::allclose(a, b, 0, tolerance * largest))
        << (a - b).abs().max().item<double>() << " beside " << largest;
  }
  EmulatedTensors tensors_;
};

TEST_F(DeviceHeadLoss, IsTheHostsWhateverThePiecesAndSizes) {
  for (const int64_t chunks : {1, 3, 70}) {
    Case c({67, 12, 1031});
    c.options.chunks = chunks;
    ExpectTheHosts(c);
  }
  for (const Shape& shape : {Shape{1, 3, 2}, {7, 5, 513}, {16, 8, 512}})
    ExpectTheHosts(Case(shape));
}

TEST_F(DeviceHeadLoss, IgnoredLabelsTakeNoPart) {
  Case c({40, 8, 700});
  c.labels.narrow(0, 3, 17).fill_(kIgnoredLabel);
  ExpectTheHosts(c);
}

TEST_F(DeviceHeadLoss, PassesOnTheGradientFromAbove) {
  Case c({33, 6, 70});
  c.upstream = 0.25;
  ExpectTheHosts(c);
}

TEST_F(DeviceHeadLoss, UnderBf16) {
  Case c({33, 16, 600});
  c.bf16 = true;
  // Both add what the host's threads and the device's lanes round differently before bf16 does.
  ExpectTheHosts(c, 5e-3);
  c.weight = c.weight.to(at::kBFloat16);
  ExpectTheHosts(c, 8e-3);
  c.hidden = c.hidden.to(at::kBFloat16);
  c.bf16 = false;
  ExpectTheHosts(c, 8e-3);
}

TEST_F(DeviceHeadLoss, OfNoLabelIsNanWithoutAGradient) {
  Case c({9, 4, 11});
  c.labels.fill_(kIgnoredLabel);
  for (const bool recompute : {false, true}) {
    c.options.recompute = recompute;
    const Outcome got = GradientsOf(c, kEmulatedDevice).OnHost();
    EXPECT_TRUE(std::isnan(got.loss.item<double>()));
    EXPECT_EQ(got.dh.abs().max().item<double>(), 0);
    EXPECT_EQ(got.dw.abs().max().item<double>(), 0);
  }
}

TEST_F(DeviceHeadLoss, WithoutAGraphAndWithLabelsOnTheDevice) {
  const Case c({77, 8, 600});
  const torch::NoGradGuard no_grad;
  const double want = HeadLoss(c.hidden, c.weight, c.labels, {4}).item<double>();
  const at::Tensor h = c.hidden.to(kEmulatedDevice), w = c.weight.to(kEmulatedDevice);
  for (const at::Device labels : {at::Device(at::kCPU), kEmulatedDevice}) {
    const at::Tensor loss = HeadLoss(h, w, c.labels.to(labels), {4});
    EXPECT_NEAR(loss.item<double>(), want, 1e-6 * want);
  }
}

TEST_F(DeviceHeadLoss, RefusesALabelThatIsNoClass) {
  Case c({5, 4, 6});
  c.labels[3] = 6;
  EXPECT_THROW(GradientsOf(c, kEmulatedDevice), c10::Error);
}

TEST_F(DeviceHeadLoss, RecomputeGoesBackwardTwice) {
  Case c({20, 8, 30});
  c.options = {3, true};
  const Outcome once = GradientsOf(c, at::kCPU);
  const at::Tensor h = c.hidden.to(kEmulatedDevice),
                   w = c.weight.to(kEmulatedDevice).requires_grad_();
  const at::Tensor loss = HeadLoss(h, w, c.labels, c.options);
  loss.backward({}, /*retain_graph=*/true);
  loss.backward();
  ExpectNear(w.grad().cpu(), 2 * once.dw, 2e-6);
}

}  // namespace
}  // namespace tw
