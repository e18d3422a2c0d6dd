// Updates of bf16 parameters: through fp32 copies, and by rounding at random.

#include "core/engine/update.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/engine/norms.h"
#include "core/kernels/float16.h"
#include "tests/core/engine/engine_parts.h"

namespace tw {
namespace {

using kernels::Bf16ToFloat;
using kernels::FloatToBf16;

// One parameter in two bytes, with its gradient.
struct Half {
  explicit Half(int64_t numel, float start) : spec{3, "w", {numel}, DType::kBF16} {
    value.assign(static_cast<size_t>(numel), FloatToBf16(start));
    grad.assign(value.size(), 0);
  }
  ParameterView view() {
    return {&spec,
            {value.data(), DType::kBF16, spec.numel()},
            {grad.data(), DType::kBF16, spec.numel()}};
  }
  double mean() const {
    double sum = 0;
    for (const uint16_t x : value) sum += Bf16ToFloat(x);
    return sum / static_cast<double>(value.size());
  }
  TensorSpec spec;
  std::vector<uint16_t> value, grad;
};

float Gradient(int64_t i, int step) {
  return std::sin(0.37f * static_cast<float>(i) + 1.7f * static_cast<float>(step));
}

// The copy goes the way of an fp32 parameter that has the same gradients, bit for bit, and the
// parameter is the copy rounded.
TEST(UpdateOfBf16, CopiesAreTheFp32Run) {
  for (const char* name : {"adamw", "sgdm", "adam_mini"}) {
    const auto optimizer = MakeVariant<Optimizer>(name);
    Half half(5003, 0.75f);
    TensorSpec spec = half.spec;
    spec.dtype = DType::kF32;
    std::vector<float> value(half.value.size(), 0.75f), grad(value.size());
    StateBag narrow, wide;
    for (int step = 1; step <= 5; ++step) {
      for (size_t i = 0; i < grad.size(); ++i) {
        half.grad[i] = FloatToBf16(Gradient(static_cast<int64_t>(i), step));
        grad[i] = Bf16ToFloat(half.grad[i]);
      }
      UpdateContext context{1e-3, 0.5f, step, &narrow};
      context.masters = Masters::kFp32;
      const ParameterView ours[] = {half.view()};
      ASSERT_TRUE(Update(*optimizer, ours, context).ok());
      context.state = &wide;
      const ParameterView theirs[] = {{&spec,
                                       {value.data(), DType::kF32, spec.numel()},
                                       {grad.data(), DType::kF32, spec.numel()}}};
      ASSERT_TRUE(optimizer->Step(theirs, context).ok());
      for (size_t i = 0; i < value.size(); ++i) {
        ASSERT_EQ(half.value[i], FloatToBf16(value[i])) << name << ", step " << step << ", " << i;
      }
    }
    EXPECT_EQ(narrow.bytes("optimizer/w/master"), MasterBytes(half.spec, Masters::kFp32));
  }
}

// Steps of 1e-4 at 1, where neighbours in bf16 are 0.0039 apart: 100 of them.
TEST(UpdateOfBf16, SmallStepsAreKept) {
  const auto optimizer = MakeVariant<Optimizer>("sgdm", {{"momentum", 0.0}});
  const auto end = [&](Masters masters) {
    Half half(20000, 1.0f);
    for (uint16_t& g : half.grad) g = FloatToBf16(1.0f);
    StateBag state;
    for (int step = 1; step <= 100; ++step) {
      UpdateContext context{1e-4, 1.0f, step, &state};
      context.masters = masters;
      const ParameterView views[] = {half.view()};
      TW_CHECK_OK(Update(*optimizer, views, context));
    }
    return half;
  };
  EXPECT_EQ(end(Masters::kNone).mean(), 1.0);
  EXPECT_EQ(end(Masters::kFp32).mean(), Bf16ToFloat(FloatToBf16(0.99f)));
  const Half random = end(Masters::kStochastic);
  // A random walk of some 5 steps of 0.002 to 0.004: its mean over 20000 is known to 1e-4.
  EXPECT_NEAR(random.mean(), 0.99, 3e-4);
  EXPECT_EQ(random.value, end(Masters::kStochastic).value) << "the same numbers on every rank";
}

// Other parameters of the same call, and another update's random numbers.
TEST(UpdateOfBf16, LeavesFp32ParametersToTheOptimizer) {
  const auto optimizer = MakeVariant<Optimizer>("adamw");
  std::vector<float> value(100, 1.0f), alone = value, grad(100, 0.5f);
  const TensorSpec spec{0, "norm", {100}, DType::kF32};
  const auto view = [&](std::vector<float>& of) {
    return ParameterView{&spec, {of.data(), DType::kF32, 100}, {grad.data(), DType::kF32, 100}};
  };
  Half half(100, 1.0f);
  StateBag together, apart;
  UpdateContext context{1e-3, 1.0f, 1, &together};
  context.masters = Masters::kStochastic;
  const ParameterView both[] = {view(value), half.view()};
  ASSERT_TRUE(Update(*optimizer, both, context).ok());
  context.state = &apart;
  const ParameterView one[] = {view(alone)};
  ASSERT_TRUE(optimizer->Step(one, context).ok());
  EXPECT_EQ(value, alone);
  EXPECT_EQ(together.Find("optimizer/w/master"), nullptr);
}

// In tiles, of any length.
TEST(UpdateOfBf16, NormsAreThoseOfTheValues) {
  for (const int64_t numel : {0, 1, 7, 2047, 2048, 2049, 5003}) {
    Half half(numel, 1.0f);
    double squares = 0;
    for (size_t i = 0; i < half.grad.size(); ++i) {
      half.grad[i] = FloatToBf16(Gradient(static_cast<int64_t>(i), 1));
      squares += std::pow(Bf16ToFloat(half.grad[i]), 2);
    }
    const ParameterView views[] = {half.view()};
    EXPECT_NEAR(GradientNorm(views), std::sqrt(squares), 1e-6 * std::sqrt(squares)) << numel;
  }
}

}  // namespace
}  // namespace tw
