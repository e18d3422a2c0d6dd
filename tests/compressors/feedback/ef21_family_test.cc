#include "tests/compressors/feedback/simulated_ranks.h"

namespace tw::feedback_sim {
namespace {

constexpr int64_t kNumel = 40;
const std::vector<std::string> kContractive = {"ef21", "ef21m", "econtrol", "econtrol_m"};

// A policy around top-k, three ranks, gradients without structure.
struct Setting {
  std::unique_ptr<FeedbackPolicy> policy;
  std::unique_ptr<Compressor> codec;
  SimulatedRanks ranks;

  Setting(const std::string& name, const Keys& keys = {}, DType dtype = DType::kF32,
          const std::string& codec_name = "topk", const Keys& codec_keys = {{"ratio", 0.1}})
      : policy(Make<FeedbackPolicy>(name, keys)),
        codec(Make<Compressor>(codec_name, codec_keys)),
        ranks(policy.get(), codec.get(), SpecOf(kNumel, dtype), 3) {}

  Vector Run(int steps) {
    Vector estimate;
    for (int s = 0; s < steps; ++s) {
      estimate = ranks.Step(RandomGradients(3, kNumel, ranks.step()));
    }
    return estimate;
  }
};

TEST(Ef21Family, TheMeanEstimateIsTheMeanOfTheOwnOnes) {
  for (const std::string& name : kContractive) {
    for (const std::string init : {"gradient", "zero"}) {
      for (const DType dtype : {DType::kF32, DType::kF64, DType::kF16}) {
        Setting s(name, {{"init", init}}, dtype);
        const Vector estimate = s.Run(30);
        EXPECT_GT(Norm(estimate), 0.1);
        EXPECT_EQ(estimate, s.ranks.state(0, "H"));
        const double rounding = dtype == DType::kF64 ? 1e-6 : 3e-6;  // bodies are fp32
        EXPECT_LT(Distance(s.ranks.mean_state("h"), estimate), rounding) << name << " " << init;
        for (int r = 1; r < 3; ++r) EXPECT_EQ(s.ranks.state(r, "H"), s.ranks.state(0, "H"));
      }
    }
  }
}

TEST(Ef21Family, ADenseFirstMessageMakesTheEstimateTheGradient) {
  for (const std::string name : {"ef21", "ef21m", "econtrol", "econtrol_m", "diana"}) {
    Setting s(name);
    const auto grads = RandomGradients(3, kNumel, 0);
    const Vector estimate = s.ranks.Step(grads);
    for (int r = 0; r < 3; ++r) {
      EXPECT_EQ(s.ranks.state(r, "h"), grads[static_cast<size_t>(r)]) << name;
    }
    EXPECT_LT(Distance(estimate, MeanOf(grads)), 1e-6);
    EXPECT_TRUE(s.policy->traits().dense_first);
    EXPECT_FALSE(Make<FeedbackPolicy>(name, {{"init", "zero"}})->traits().dense_first);
  }
}

TEST(Ef21Family, SlotsAreReshardedByTheirKind) {
  for (const std::string& name : kContractive) {
    Setting s(name);
    s.Run(2);
    int64_t floats = 0;
    s.ranks.bag(0).ForEach([&](const std::string& slot, const StateSlot& cell) {
      const bool replicated = slot == s.ranks.SlotName("H");
      EXPECT_EQ(cell.reshard, replicated ? Reshard::kReplicated : Reshard::kKeepMean) << slot;
      floats += cell.view.numel;
    });
    EXPECT_EQ(floats, s.policy->traits().state_floats * kNumel) << name;
  }
}

// Three ranks become one whose e, h and v are the averages, then that one becomes two by copy.
TEST(Ef21Family, ReshardingKeepsTheMeanInvariant) {
  for (const std::string& name : kContractive) {
    Setting s(name);
    s.Run(10);
    SimulatedRanks one(s.policy.get(), s.codec.get(), SpecOf(kNumel), 1);
    SimulatedRanks two(s.policy.get(), s.codec.get(), SpecOf(kNumel), 2);
    one.Step(RandomGradients(1, kNumel, 0));
    two.Step(RandomGradients(2, kNumel, 0));
    for (const char* slot : {"h", "H", "e", "v"}) {
      if (!s.ranks.has(slot)) continue;
      const Vector mean = s.ranks.mean_state(slot);  // of H, which is the same on all: H itself
      for (int r = 0; r < 2; ++r) Assign(two.slot(r, slot), mean);
      Assign(one.slot(0, slot), mean);
    }
    for (uint64_t step = 20; step < 25; ++step) {
      one.Step(RandomGradients(1, kNumel, step));
      two.Step(RandomGradients(2, kNumel, step));
    }
    EXPECT_LT(Distance(one.mean_state("h"), one.state(0, "H")), 3e-6) << name;
    EXPECT_LT(Distance(two.mean_state("h"), two.state(0, "H")), 3e-6) << name;
  }
}

TEST(Ef21Family, ALosslessCodecGivesTheMeanGradientAndNoError) {
  for (const std::string name : {"ef21", "econtrol", "diana"}) {
    for (const std::string init : {"gradient", "zero"}) {
      Setting s(name, {{"init", init}}, DType::kF32, "none", {});
      for (uint64_t step = 0; step < 10; ++step) {
        const auto grads = RandomGradients(3, kNumel, step);
        EXPECT_LT(Distance(s.ranks.Step(grads), MeanOf(grads)), 1e-6) << name << " " << step;
      }
      if (s.ranks.has("e")) {
        EXPECT_EQ(Norm(s.ranks.mean_state("e")), 0);
      }
    }
  }
}

// The paper's form of the error, e + g - h - D with the old h, followed in fp64 beside the policy.
TEST(EControl, TheErrorFollowsThePapersRecursion) {
  const double eta = 0.25;
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16}) {
    Setting s("econtrol", {{"eta", std::to_string(eta)}, {"init", "zero"}}, dtype);
    std::vector<Vector> e(3, Vector(kNumel)), h(3, Vector(kNumel));
    for (uint64_t step = 0; step < 40; ++step) {
      const auto grads = RandomGradients(3, kNumel, step);
      s.ranks.Step(grads);
      for (size_t r = 0; r < 3; ++r) {
        for (size_t i = 0; i < static_cast<size_t>(kNumel); ++i) {
          const double d = s.ranks.decoded()[r][i];
          if (d != 0) {
            EXPECT_NEAR(d, eta * e[r][i] + grads[r][i] - h[r][i], 1e-4);
          }
          e[r][i] += grads[r][i] - h[r][i] - d;
          h[r][i] += d;
        }
      }
    }
    for (int r = 0; r < 3; ++r) {
      EXPECT_GT(Norm(s.ranks.state(r, "e")), 1.0);
      EXPECT_LT(Distance(s.ranks.state(r, "e"), e[static_cast<size_t>(r)]), 1e-4)
          << DTypeName(dtype);
      EXPECT_LT(Distance(s.ranks.state(r, "h"), h[static_cast<size_t>(r)]), 1e-5);
    }
  }
}

// x - gamma * mean e takes plain gradient steps: x - gamma * mean e == x0 - gamma * sum mean g. The
// gradients follow x, so that what drives the identity is the method's own path.
TEST(EControl, TheVirtualIterateTakesPlainGradientSteps) {
  const double gamma = 0.1;
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    for (const std::string init : {"gradient", "zero"}) {
      Setting s("econtrol", {{"eta", "0.05"}, {"init", init}}, dtype);
      Vector x(kNumel, 1.0), plain = x;
      for (uint64_t step = 0; step < 60; ++step) {
        auto grads = RandomGradients(3, kNumel, step);
        for (size_t r = 0; r < 3; ++r) {
          for (size_t i = 0; i < x.size(); ++i) {
            grads[r][i] += 0.25 * static_cast<double>(r + 1) * x[i];
          }
        }
        const Vector estimate = s.ranks.Step(grads), mean = MeanOf(grads);
        const Vector e = s.ranks.mean_state("e");
        Vector shifted = x;
        for (size_t i = 0; i < x.size(); ++i) {
          x[i] -= gamma * estimate[i];
          plain[i] -= gamma * mean[i];
          shifted[i] = x[i] - gamma * e[i];
        }
        ASSERT_LT(Distance(shifted, plain), 1e-5) << DTypeName(dtype) << " " << init << " " << step;
      }
      EXPECT_GT(Distance(x, plain), 0.1);  // the iterate itself does not
    }
  }
}

TEST(EControl, WithEtaZeroIsEf21BitForBitAndKeepsNoError) {
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    Setting a("econtrol", {{"eta", "0"}}, dtype), b("ef21", {}, dtype);
    for (int step = 0; step < 30; ++step) EXPECT_EQ(a.Run(1), b.Run(1));
    EXPECT_EQ(a.ranks.state(2, "h"), b.ranks.state(2, "h"));
    EXPECT_FALSE(a.ranks.has("e"));
    EXPECT_EQ(a.policy->traits().state_floats, 2);
  }
}

TEST(EControlM, WithEtaZeroIsEf21mBitForBit) {
  Setting a("econtrol_m", {{"eta", int64_t{0}}}), b("ef21m");
  for (int step = 0; step < 30; ++step) EXPECT_EQ(a.Run(1), b.Run(1));
  EXPECT_FALSE(a.ranks.has("e"));
}

TEST(EControlM, WithFullMomentumIsEControlBitForBit) {
  Setting a("econtrol_m", {{"momentum", 1.0}}), b("econtrol");
  for (int step = 0; step < 30; ++step) EXPECT_EQ(a.Run(1), b.Run(1));
  EXPECT_EQ(a.ranks.state(1, "e"), b.ranks.state(1, "e"));
}

// With h held at zero and eta = 1, EControl is EF14. The policy moves h, so the identity is one
// step from an equal error and a zero h.
TEST(EControl, WithEtaOneAndNoEstimateMakesTheStepOfEf14) {
  Setting a("econtrol", {{"eta", "1"}, {"init", "zero"}}), b("ef14");
  a.Run(1);
  b.Run(1);
  const auto error = RandomGradients(3, kNumel, 99);
  for (int r = 0; r < 3; ++r) {
    Assign(a.ranks.slot(r, "e"), error[static_cast<size_t>(r)]);
    Assign(b.ranks.slot(r, "e"), error[static_cast<size_t>(r)]);
    FillZero(a.ranks.slot(r, "h"));
    FillZero(a.ranks.slot(r, "H"));
  }
  EXPECT_EQ(a.Run(1), b.Run(1));
  for (int r = 0; r < 3; ++r) EXPECT_EQ(a.ranks.state(r, "e"), b.ranks.state(r, "e"));
}

TEST(Ef21m, AveragesTheGradientFromTheFirstOne) {
  Setting s("ef21m", {{"momentum", 0.25}});
  s.Run(3);
  Vector v = RandomGradients(3, kNumel, 0)[1];
  for (uint64_t step = 1; step < 3; ++step) {
    const Vector g = RandomGradients(3, kNumel, step)[1];
    for (size_t i = 0; i < v.size(); ++i) v[i] = 0.75 * v[i] + 0.25 * g[i];
  }
  EXPECT_LT(Distance(s.ranks.state(1, "v"), v), 1e-6);
}

TEST(EControl, TakesAutoOrANumberForEta) {
  EXPECT_TRUE(TryMake<FeedbackPolicy>("econtrol", {{"eta", "auto"}}).ok());
  EXPECT_TRUE(TryMake<FeedbackPolicy>("econtrol", {{"eta", 0.02}}).ok());
  for (const std::string bad : {"-0.1", "some", "nan", "1.5", ""}) {
    const auto made = TryMake<FeedbackPolicy>("econtrol", {{"eta", bad}});
    ASSERT_FALSE(made.ok()) << bad;
    EXPECT_EQ(FaultOf(made.status()), Fault::kConfig);
    EXPECT_NE(made.status().message().find("feedback.eta"), absl::string_view::npos);
  }
}

TEST(EControl, WarnsAboveAQuarterOfDelta) {
  const auto topk = Make<Compressor>("topk", {{"ratio", 0.1}});
  const auto warnings = [&](const std::string& eta) {
    return Make<FeedbackPolicy>("econtrol", {{"eta", eta}})->Warnings(SpecOf(kNumel), *topk).size();
  };
  EXPECT_EQ(warnings("auto"), 0u);
  EXPECT_EQ(warnings("0.024"), 0u);
  EXPECT_EQ(warnings("0.03"), 1u);
}

}  // namespace
}  // namespace tw::feedback_sim
