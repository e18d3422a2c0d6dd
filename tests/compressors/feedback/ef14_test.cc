#include "tests/compressors/feedback/simulated_ranks.h"

namespace tw::feedback_sim {
namespace {

TEST(Ef14, WhatWasDecodedPlusTheErrorIsTheSumOfGradients) {
  const int64_t n = 40;
  const auto policy = Make<FeedbackPolicy>("ef14");
  const auto codec = Make<Compressor>("topk", {{"ratio", 0.1}});
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
    SimulatedRanks ranks(policy.get(), codec.get(), SpecOf(n, dtype), 3);
    std::vector<Vector> sent(3, Vector(n)), total(3, Vector(n));
    for (uint64_t step = 0; step < 50; ++step) {
      const auto grads = RandomGradients(3, n, step);
      ranks.Step(grads);
      for (size_t r = 0; r < 3; ++r) {
        for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
          total[r][i] += grads[r][i];
          sent[r][i] += ranks.decoded()[r][i];
        }
      }
    }
    for (int r = 0; r < 3; ++r) {
      const size_t s = static_cast<size_t>(r);
      const Vector e = ranks.state(r, "e");
      EXPECT_GT(Norm(e), 1.0);
      for (size_t i = 0; i < e.size(); ++i) {
        // Multiples of 1/64 add up without rounding: the identity is exact.
        EXPECT_EQ(sent[s][i] + e[i], total[s][i]) << DTypeName(dtype) << " rank " << r;
      }
    }
  }
}

// By hand: top-1 of {4, 2} sends 4 and keeps {0, 2}; 0.5 * {0, 2} + {0, 2} = {0, 3} sends the 3.
TEST(Ef14, AFadingMemoryKeepsItsShare) {
  const auto policy = Make<FeedbackPolicy>("ef14", {{"decay", 0.5}});
  const auto codec = Make<Compressor>("topk", {{"ratio", 0.5}});
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16}) {
    SimulatedRanks ranks(policy.get(), codec.get(), SpecOf(2, dtype), 1);
    EXPECT_EQ(ranks.Step({{4, 2}}), (Vector{4, 0}));
    EXPECT_EQ(ranks.state(0, "e"), (Vector{0, 2}));
    EXPECT_EQ(ranks.Step({{0, 2}}), (Vector{0, 3}));
    EXPECT_EQ(ranks.state(0, "e"), (Vector{0, 0}));
  }
}

TEST(Ef14, EncodesInTheMemoryOfItsError) {
  const auto policy = Make<FeedbackPolicy>("ef14");
  const auto codec = Make<Compressor>("topk", {{"ratio", 0.1}});
  SimulatedRanks ranks(policy.get(), codec.get(), SpecOf(40), 2);
  ranks.Step(RandomGradients(2, 40, 0));
  EXPECT_EQ(ranks.message_data(), ranks.slot(0, "e").data);
}

TEST(Ef14, KeepsNoErrorOfALosslessCodec) {
  const auto policy = Make<FeedbackPolicy>("ef14");
  const auto codec = Make<Compressor>("none");
  SimulatedRanks ranks(policy.get(), codec.get(), SpecOf(40), 2);
  for (uint64_t step = 0; step < 5; ++step) {
    const auto grads = RandomGradients(2, 40, step);
    EXPECT_EQ(ranks.Step(grads), MeanOf(grads));
    EXPECT_EQ(Norm(ranks.state(0, "e")), 0);
  }
}

TEST(Ef14, KeepsItsErrorPerRank) {
  const auto policy = Make<FeedbackPolicy>("ef14");
  const auto codec = Make<Compressor>("topk", {{"ratio", 0.1}});
  SimulatedRanks ranks(policy.get(), codec.get(), SpecOf(40), 2);
  ranks.Step(RandomGradients(2, 40, 0));
  EXPECT_EQ(ranks.bag(0).Find(ranks.SlotName("e"))->reshard, Reshard::kKeepMean);
  EXPECT_EQ(policy->traits().state_floats, 1);
  EXPECT_FALSE(policy->traits().exact_mean);
  EXPECT_FALSE(policy->traits().dense_first);
}

TEST(NoFeedback, SendsTheGradientAndKeepsNothing) {
  const auto policy = Make<FeedbackPolicy>("none");
  const auto codec = Make<Compressor>("topk", {{"ratio", 0.1}});
  SimulatedRanks ranks(policy.get(), codec.get(), SpecOf(40), 2);
  const auto grads = RandomGradients(2, 40, 0);
  const Vector estimate = ranks.Step(grads);
  EXPECT_EQ(estimate, MeanOf(ranks.decoded()));
  EXPECT_EQ(ranks.bag(0).bytes("feedback/"), 0);
}

}  // namespace
}  // namespace tw::feedback_sim
