// Golden numbers below: plain Python in fp64, p_i = 0.5 i - 1 and g_i(t) = (1 + i) sin(1 + 0.7 i +
// 0.3 t), i = 0..4, after 10 updates of the formula in the optimizer's banner.

#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <cmath>
#include <cstring>

#include "core/api/convert.h"
#include "core/api/optimizer.h"
#include "core/nn/torch.h"
#include "gtest/gtest.h"

namespace tw {
namespace {

constexpr int64_t kElements = 5;
constexpr int kUpdates = 10;

double Gradient(int64_t i, int update) {
  return (1.0 + static_cast<double>(i)) *
         std::sin(1.0 + 0.7 * static_cast<double>(i) + 0.3 * update);
}

std::unique_ptr<Optimizer> Make(const std::string& name, const ConfigSection& keys = {}) {
  ConfigSection section = keys;
  section.name = "optimizer";
  section.Set("name", name);
  auto made = Registry<Optimizer>::Get().Make(section, name);
  TW_CHECK_OK(made);
  return std::move(made).value();
}

ConfigSection Keys(const std::vector<std::pair<std::string, FieldValue>>& values) {
  ConfigSection section;
  for (const auto& [key, value] : values) section.Set(key, value);
  return section;
}

// One parameter of any floating dtype, driven by Gradient() / grad_scale.
struct Descent {
  TensorSpec spec{.id = 0, .name = "w", .shape = {kElements}};
  StateBag state;
  std::vector<double> values;

  Descent(const Optimizer& optimizer, DType dtype, double lr, float grad_scale = 1) {
    spec.dtype = dtype;
    std::vector<double> wide(kElements), wide_grad(kElements);
    std::vector<uint8_t> value_bytes(kElements * 8), grad_bytes(kElements * 8);
    const TensorView value{value_bytes.data(), dtype, kElements};
    const TensorView grad{grad_bytes.data(), dtype, kElements};
    const TensorView wide_view{wide.data(), DType::kF64, kElements};
    for (int64_t i = 0; i < kElements; ++i) wide[static_cast<size_t>(i)] = 0.5 * i - 1.0;
    Assign(value, wide_view);
    for (int update = 1; update <= kUpdates; ++update) {
      for (int64_t i = 0; i < kElements; ++i) {
        wide_grad[static_cast<size_t>(i)] = Gradient(i, update) / grad_scale;
      }
      Assign(grad, {wide_grad.data(), DType::kF64, kElements});
      const ParameterView view{&spec, value, grad};
      TW_CHECK_OK(optimizer.Step(
          {&view, 1}, {.lr = lr, .grad_scale = grad_scale, .update = update, .state = &state}));
    }
    Assign(wide_view, value);
    values = wide;
  }

  static void Assign(TensorView to, TensorView from) {
    FillZero(to);
    AddScaled(to, from, 1.0f);
  }
};

void ExpectClose(const std::vector<double>& got, const std::vector<double>& want, double relative) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], want[i], relative * std::abs(want[i])) << "element " << i;
  }
}

const std::vector<double> kAdamW = {-1.136637503501, -0.573261575409, 0.047607536467,
                                    0.682839491885, 1.156875042964};
const std::vector<double> kAdamNoDecay = {-1.142658966093, -0.559534022733, 0.066438795271,
                                          0.696592470873, 1.169023063851};
const std::vector<double> kSgdm = {-2.165194627204, -1.063736594846, 2.240242300775, 6.206924884317,
                                   8.17759978131};
const std::vector<double> kNesterov = {-2.196328546157, -0.861749157222, 2.802437767889,
                                       6.951030089747, 8.663288583157};

std::unique_ptr<Optimizer> AdamWUnderTest() { return Make("adamw", Keys({{"weight_decay", 0.1}})); }
std::unique_ptr<Optimizer> SgdmUnderTest(bool nesterov) {
  return Make("sgdm", Keys({{"weight_decay", 0.01}, {"nesterov", nesterov}}));
}

TEST(AdamW, FollowsTheFormula) {
  ExpectClose(Descent(*AdamWUnderTest(), DType::kF64, 0.02).values, kAdamW, 1e-10);
  ExpectClose(Descent(*AdamWUnderTest(), DType::kF32, 0.02).values, kAdamW, 3e-6);
}

TEST(AdamW, TakesItsKeys) {
  const auto adam =
      Make("adamw", Keys({{"weight_decay", 0.0}, {"betas", std::vector<double>{0.8, 0.95}}}));
  ExpectClose(Descent(*adam, DType::kF64, 0.02).values, kAdamNoDecay, 1e-10);
  EXPECT_FALSE(Registry<Optimizer>::Get()
                   .Find("adamw")
                   ->make(Keys({{"betas", std::vector<double>{0.9, 1.0}}}))
                   .ok());
}

// Parameter updates of LibTorch's own optimizer for the same gradients.
std::vector<double> TorchValues(torch::optim::Optimizer& optimizer, torch::Tensor& parameter) {
  for (int update = 1; update <= kUpdates; ++update) {
    auto grad = torch::empty({kElements});
    for (int64_t i = 0; i < kElements; ++i) {
      grad[i] = static_cast<float>(Gradient(i, update));
    }
    parameter.mutable_grad() = grad;
    optimizer.step();
  }
  std::vector<double> out;
  for (int64_t i = 0; i < kElements; ++i) out.push_back(parameter[i].item<float>());
  return out;
}

torch::Tensor TorchParameter() {
  auto p = torch::arange(kElements, torch::kFloat32) * 0.5 - 1.0;
  return p.detach().requires_grad_(true);
}

TEST(AdamW, AgreesWithLibTorch) {
  auto p = TorchParameter();
  torch::optim::AdamW peer({p}, torch::optim::AdamWOptions(0.02).weight_decay(0.1));
  const auto want = TorchValues(peer, p);
  const auto got = Descent(*AdamWUnderTest(), DType::kF32, 0.02).values;
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-6) << "element " << i;
}

TEST(Sgdm, AgreesWithLibTorch) {
  for (const bool nesterov : {false, true}) {
    auto p = TorchParameter();
    torch::optim::SGD peer(
        {p}, torch::optim::SGDOptions(0.05).momentum(0.9).weight_decay(0.01).nesterov(nesterov));
    const auto want = TorchValues(peer, p);
    ExpectClose(Descent(*SgdmUnderTest(nesterov), DType::kF32, 0.05).values, want, 1e-6);
  }
}

TEST(Sgdm, FollowsTheFormula) {
  ExpectClose(Descent(*SgdmUnderTest(false), DType::kF64, 0.05).values, kSgdm, 1e-10);
  ExpectClose(Descent(*SgdmUnderTest(true), DType::kF64, 0.05).values, kNesterov, 1e-10);
  ExpectClose(Descent(*SgdmUnderTest(false), DType::kF32, 0.05).values, kSgdm, 3e-6);
}

TEST(Sgdm, WithoutMomentumKeepsNoState) {
  const auto sgd = Make("sgdm", Keys({{"momentum", 0.0}}));
  Descent descent(*sgd, DType::kF64, 0.05);
  std::vector<double> want;
  for (int64_t i = 0; i < kElements; ++i) {
    double p = 0.5 * static_cast<double>(i) - 1.0;
    for (int update = 1; update <= kUpdates; ++update) p -= 0.05 * Gradient(i, update);
    want.push_back(p);
  }
  ExpectClose(descent.values, want, 1e-12);
  EXPECT_EQ(descent.state.bytes(), 0);
  EXPECT_EQ(sgd->StateBytes(descent.spec), 0);
}

TEST(Sgdm, RefusesNesterovWithoutMomentum) {
  const auto made =
      Registry<Optimizer>::Get().Find("sgdm")->make(Keys({{"momentum", 0.0}, {"nesterov", true}}));
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(FaultOf(made.status()), Fault::kConfig);
}

TEST(EveryOptimizer, AppliesTheGradScaleInsideTheUpdate) {
  for (const std::string& name : Registry<Optimizer>::Get().names()) {
    const auto optimizer = Make(name);
    ExpectClose(Descent(*optimizer, DType::kF64, 0.02, 0.25f).values,
                Descent(*optimizer, DType::kF64, 0.02).values, 1e-6);
    EXPECT_EQ(Descent(*optimizer, DType::kF32, 0.02, 0.25f).values,
              Descent(*optimizer, DType::kF32, 0.02).values)
        << name << ": a power of two loses no bit";
  }
}

TEST(EveryOptimizer, UpdatesHalfPrecisionThroughFp32Moments) {
  for (const std::string& name : Registry<Optimizer>::Get().names()) {
    const auto optimizer = Make(name);
    const auto want = Descent(*optimizer, DType::kF64, 0.02).values;
    for (const DType dtype : {DType::kBF16, DType::kF16}) {
      Descent descent(*optimizer, dtype, 0.02);
      const double ulp = dtype == DType::kBF16 ? 0x1p-8 : 0x1p-11;
      for (size_t i = 0; i < want.size(); ++i) {
        EXPECT_NEAR(descent.values[i], want[i], kUpdates * ulp * (1 + std::abs(want[i]))) << name;
      }
      EXPECT_EQ(descent.state.bytes(), optimizer->StateBytes(descent.spec)) << name;
      descent.state.ForEach([&](const std::string&, const StateSlot& slot) {
        EXPECT_EQ(slot.view.dtype, DType::kF32);
        EXPECT_EQ(slot.reshard, Reshard::kReplicated);
      });
    }
  }
}

TEST(EveryOptimizer, LeavesAnEmptyParameterAlone) {
  for (const std::string& name : Registry<Optimizer>::Get().names()) {
    const auto optimizer = Make(name);
    for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16}) {
      const TensorSpec spec{.id = 0, .name = "empty", .shape = {0, 3}, .dtype = dtype};
      StateBag state;
      const ParameterView view{&spec, {nullptr, dtype, 0}, {nullptr, dtype, 0}};
      EXPECT_TRUE(optimizer->Step({&view, 1}, {.lr = 1, .state = &state}).ok()) << name;
      EXPECT_EQ(optimizer->StateBytes(spec), 0);
    }
  }
}

TEST(EveryOptimizer, GivesTheSameBitsHoweverParametersAreSplit) {
  const int64_t n = 103, cut = 37;
  for (const std::string& name : Registry<Optimizer>::Get().names()) {
    const auto optimizer = Make(name);
    std::vector<float> whole(n), grad(n);
    for (int64_t i = 0; i < n; ++i) {
      whole[static_cast<size_t>(i)] = static_cast<float>(std::sin(0.1 * static_cast<double>(i)));
      grad[static_cast<size_t>(i)] = static_cast<float>(std::cos(0.3 * static_cast<double>(i)));
    }
    std::vector<float> parts = whole;
    // Biases: by element for optimizers that keep one number a block, too.
    const TensorSpec all{.id = 0, .name = "all.bias", .shape = {n}};
    const TensorSpec a{.id = 0, .name = "a.bias", .shape = {cut}};
    const TensorSpec b{.id = 1, .name = "b.bias", .shape = {n - cut}};
    StateBag state_whole, state_parts;
    const std::span<float> p(parts), g(grad);
    const size_t c = static_cast<size_t>(cut);
    const ParameterView one[] = {{&all, ViewOf(whole), ViewOf(grad)}};
    const ParameterView two[] = {{&a, ViewOf(p.first(c)), ViewOf(g.first(c))},
                                 {&b, ViewOf(p.subspan(c)), ViewOf(g.subspan(c))}};
    for (int update = 1; update <= 3; ++update) {
      ASSERT_TRUE(optimizer->Step(one, {.lr = 0.1, .update = update, .state = &state_whole}).ok());
      ASSERT_TRUE(optimizer->Step(two, {.lr = 0.1, .update = update, .state = &state_parts}).ok());
    }
    EXPECT_EQ(0, std::memcmp(whole.data(), parts.data(), whole.size() * sizeof(float))) << name;
  }
}

}  // namespace
}  // namespace tw
