// What linear layers keep of their inputs, on a device: the codecs, and layers around them.
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "core/api/activation_codec.h"
#include "core/nn/init.h"
#include "core/nn/layers.h"
#include "core/nn/precision.h"
#include "core/nn/torch.h"
#include "tests/core/nn/device/emulated_tensors.h"

namespace tw {
namespace {

std::shared_ptr<const ActivationCodec> Codec(const std::string& name) {
  auto made = Registry<ActivationCodec>::Get().Find(name)->make(ConfigSection{});
  TW_CHECK_OK(made);
  return std::move(*made);
}

at::Tensor Drawn(at::IntArrayRef shape, const std::string& name) {
  const at::Tensor out = torch::empty(shape);
  InitNormal(1, name, 1, out);
  return out;
}

testing::AssertionResult Near(const at::Tensor& got, const at::Tensor& want, double tolerance) {
  const at::Tensor a = got.cpu().to(at::kFloat), b = want.to(at::kFloat);
  if (a.sizes() != b.sizes()) return testing::AssertionFailure() << a.sizes() << " " << b.sizes();
  if (at::allclose(a, b, 0, tolerance * b.abs().max().item<double>())) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure()
         << (a - b).abs().max().item<double>() << " beside " << b.abs().max().item<double>();
}

TensorView ViewOf(const at::Tensor& t) { return {t.data_ptr(), DType::kF32, t.numel()}; }

class DeviceActivations : public testing::Test {
 protected:
  EmulatedTensors tensors_;
};

TEST_F(DeviceActivations, PackAndWeightGradientAreTheHosts) {
  for (const char* name : {"compact", "int8"}) {
    const auto codec = Codec(name);
    for (const int64_t n : {1, 63, 64, 65, 300}) {
      for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
        SCOPED_TRACE(testing::Message() << name << " " << n << " " << type);
        const double tolerance = type == at::kFloat ? 1e-5 : 2e-2;
        const at::Tensor x = Drawn({37, n}, "x").to(type), dy = Drawn({37, 5}, "dy").to(type);
        const InputKey key{7, 120, 3};
        const auto want = codec->Pack(x, key);
        const int64_t before = EmulatedTensors::copies_to_host();
        const auto got = codec->Pack(x.to(kEmulatedDevice), key);
        const at::Tensor gradient = codec->WeightGradient(got, n, dy.to(kEmulatedDevice));
        EXPECT_EQ(EmulatedTensors::copies_to_host(), before) << "something waited";
        ASSERT_EQ(got.size(), want.size());
        for (size_t i = 0; i < got.size(); ++i) {
          EXPECT_EQ(got[i].device(), kEmulatedDevice);
          EXPECT_EQ(got[i].scalar_type(), want[i].scalar_type());
          if (std::string(name) == "int8") {
            EXPECT_TRUE(at::equal(got[i].cpu(), want[i]));
          } else {
            EXPECT_TRUE(Near(got[i], want[i], tolerance));
          }
        }
        EXPECT_TRUE(Near(gradient, codec->WeightGradient(want, n, dy), tolerance));
      }
    }
  }
}

TEST_F(DeviceActivations, ExpandIsTheHostsToTheLastBit) {
  const auto codec = Codec("compact");
  for (const int64_t n : {1, 63, 64, 65, 300}) {
    const InputKey key{7, 120, 3};
    const at::Tensor value = Drawn({11, n}, "w"),
                     update = Drawn({11, codec->GradientColumns(n)}, "u");
    const at::Tensor on_device = value.to(kEmulatedDevice);
    {
      const at::Tensor u = update.to(kEmulatedDevice);
      const DeviceScope scope(tensors_.queue());
      codec->Expand(ViewOf(on_device), n, 0.9, ViewOf(u), key, kEmulatedDevice);
    }
    codec->Expand(ViewOf(value), n, 0.9, ViewOf(update), key);
    EXPECT_TRUE(at::equal(on_device.cpu(), value)) << n;
  }
}

// q and k on one input.
struct Pair {
  Pair(const std::string& codec, at::Device device) {
    for (const int64_t out : {48, 20}) {
      layers.push_back(std::make_shared<Linear>(48, out));
      InitNormal(1, "w" + std::to_string(out), 0.1, layers.back()->weight);
      if (!device.is_cpu()) layers.back()->to(device);
    }
    input = LinearInputs(Codec(codec), 1, device).Make(48);
    for (const auto& layer : layers) layer->KeepInputAs(input);
    const at::Tensor x = Drawn({2, 33, 48}, "x").to(device).requires_grad_();
    at::Tensor loss = torch::zeros({}, device);
    for (const auto& layer : layers) loss = loss + layer->Forward(x).square().sum();
    loss.backward();
    gradients = {x.grad()};
    for (const auto& layer : layers) {
      gradients.push_back(layer->bias.grad());
      gradients.push_back(layer->sketch() ? layer->sketch()->leaf.grad() : layer->weight.grad());
    }
  }
  std::vector<std::shared_ptr<Linear>> layers;
  std::shared_ptr<const LinearInput> input;
  std::vector<at::Tensor> gradients;
};

TEST_F(DeviceActivations, GradientsOfLayersArriveWhereTheWeightsAre) {
  for (const char* codec : {"compact", "int8", "none"}) {
    const Pair want(codec, at::kCPU), got(codec, kEmulatedDevice);
    for (size_t i = 0; i < want.gradients.size(); ++i) {
      EXPECT_EQ(got.gradients[i].device(), kEmulatedDevice);
      EXPECT_TRUE(Near(got.gradients[i], want.gradients[i], 1e-5)) << codec << " " << i;
    }
  }
}

}  // namespace
}  // namespace tw
