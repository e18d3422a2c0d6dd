// Every registered feedback around every registered one-round codec that it goes together with.

#include <cmath>

#include "tests/compressors/feedback/simulated_ranks.h"

namespace tw::feedback_sim {
namespace {

constexpr int kRanks = 3;
constexpr int kSteps = 20;
constexpr int64_t kNumel = 200;

bool GoTogether(const FeedbackPolicy& policy, const Compressor& codec) {
  const CompressorTraits& traits = codec.traits();
  if (traits.rounds != 1 || traits.matrix_only) return false;
  return traits.unbiased || !policy.traits().needs_unbiased;
}

struct Pair {
  std::string feedback, codec;
};

std::vector<Pair> Pairs() {
  std::vector<Pair> pairs;
  for (const std::string& feedback : Registry<FeedbackPolicy>::Get().names()) {
    const auto policy = Make<FeedbackPolicy>(feedback);
    for (const std::string& codec : Registry<Compressor>::Get().names()) {
      if (GoTogether(*policy, *Make<Compressor>(codec))) pairs.push_back({feedback, codec});
    }
  }
  return pairs;
}

// One policy and one codec, and three ranks around them.
struct Setting {
  std::unique_ptr<FeedbackPolicy> policy;
  std::unique_ptr<Compressor> codec;
  SimulatedRanks ranks;
  Setting(const Pair& pair, DType dtype, int64_t numel = kNumel)
      : policy(Make<FeedbackPolicy>(pair.feedback)),
        codec(Make<Compressor>(pair.codec)),
        ranks(policy.get(), codec.get(), SpecOf(numel, dtype), kRanks) {}
  Vector Step() { return ranks.Step(RandomGradients(kRanks, numel(), ranks.step())); }
  int64_t numel() { return ranks.spec().numel(); }
};

// Every slot of a bag with its bytes.
std::vector<std::pair<std::string, std::vector<uint8_t>>> Bits(StateBag& bag) {
  std::vector<std::pair<std::string, std::vector<uint8_t>>> out;
  bag.ForEach([&](const std::string& name, const StateSlot& slot) {
    const ByteSpan raw = slot.view.raw();
    out.emplace_back(name, std::vector<uint8_t>(raw.begin(), raw.end()));
  });
  return out;
}

class FeedbackConformance : public testing::TestWithParam<Pair> {};

TEST_P(FeedbackConformance, StaysFiniteAndKeepsItsInvariant) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
    Setting s(GetParam(), dtype);
    Vector estimate;
    for (int step = 0; step < kSteps; ++step) estimate = s.Step();
    for (const double x : estimate) ASSERT_TRUE(std::isfinite(x)) << DTypeName(dtype);
    s.ranks.bag(0).ForEach([&](const std::string& name, const StateSlot& slot) {
      EXPECT_TRUE(name.rfind("feedback/", 0) != 0 || AllFinite(slot.view)) << name;
    });
    if (!s.policy->traits().exact_mean) continue;
    const Vector mean = s.ranks.mean_state("h");
    EXPECT_LT(Distance(mean, s.ranks.state(0, "H")), 1e-5 * (1 + Norm(mean))) << DTypeName(dtype);
    for (int r = 1; r < kRanks; ++r) EXPECT_EQ(s.ranks.state(r, "H"), s.ranks.state(0, "H"));
  }
}

TEST_P(FeedbackConformance, RepeatsItselfBitForBit) {
  Setting a(GetParam(), DType::kF32), b(GetParam(), DType::kF32);
  for (int step = 0; step < 5; ++step) EXPECT_EQ(a.Step(), b.Step());
  for (int r = 0; r < kRanks; ++r) EXPECT_EQ(Bits(a.ranks.bag(r)), Bits(b.ranks.bag(r)));
}

TEST_P(FeedbackConformance, ARolledBackStepLeavesNoTrace) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int before : {0, 3}) {
      Setting s(GetParam(), dtype);
      for (int step = 0; step < before; ++step) s.Step();
      std::vector<decltype(Bits(s.ranks.bag(0)))> kept;
      for (int r = 0; r < kRanks; ++r) {
        kept.push_back(Bits(s.ranks.bag(r)));
        s.ranks.bag(r).BeginJournal();
      }
      s.Step();
      for (int r = 0; r < kRanks; ++r) {
        s.ranks.bag(r).Rollback();
        EXPECT_EQ(Bits(s.ranks.bag(r)), kept[static_cast<size_t>(r)]) << "after " << before;
      }
    }
  }
}

TEST_P(FeedbackConformance, TakesTensorsOfNoneAndOneElement) {
  for (const int64_t numel : {0, 1}) {
    Setting s(GetParam(), DType::kF32, numel);
    for (int step = 0; step < 3; ++step) {
      for (const double x : s.Step()) EXPECT_TRUE(std::isfinite(x));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registered, FeedbackConformance, testing::ValuesIn(Pairs()),
                         [](const auto& info) {
                           return info.param.feedback + "_" + info.param.codec;
                         });

TEST(FeedbackRegistry, HoldsEveryPolicyOfTheContract) {
  for (const char* name :
       {"none", "ef14", "ef21", "ef21m", "econtrol", "econtrol_m", "diana", "dgc"}) {
    EXPECT_NE(Registry<FeedbackPolicy>::Get().Find(name), nullptr) << name;
  }
}

}  // namespace
}  // namespace tw::feedback_sim
