#include "tests/compressors/feedback/simulated_ranks.h"

namespace tw::feedback_sim {
namespace {

TEST(Dgc, WithoutMomentumIsEf14BitForBit) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
    for (const char* codec_name : {"topk", "blockquant", "sign", "randk"}) {
      const auto dgc = Make<FeedbackPolicy>("dgc", {{"momentum", 0.0}});
      const auto ef14 = Make<FeedbackPolicy>("ef14");
      const auto codec = Make<Compressor>(codec_name);
      SimulatedRanks a(dgc.get(), codec.get(), SpecOf(200, dtype), 3);
      SimulatedRanks b(ef14.get(), codec.get(), SpecOf(200, dtype), 3);
      for (uint64_t step = 0; step < 20; ++step) {
        const auto grads = RandomGradients(3, 200, step);
        EXPECT_EQ(a.Step(grads), b.Step(grads)) << codec_name;
      }
      for (int r = 0; r < 3; ++r) EXPECT_EQ(a.state(r, "v"), b.state(r, "e")) << codec_name;
      EXPECT_FALSE(a.has("u"));
    }
  }
}

// By hand, top-1 of two: {4, 2} sends 4 and clears its momentum; then u = {0, 1} + {0, 2},
// v = {0, 2} + {0, 3} sends 5.
TEST(Dgc, MomentumOfWhatWasSentStartsAnew) {
  const auto policy = Make<FeedbackPolicy>("dgc", {{"momentum", 0.5}});
  const auto codec = Make<Compressor>("topk", {{"ratio", 0.5}});
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
    SimulatedRanks ranks(policy.get(), codec.get(), SpecOf(2, dtype), 1);
    EXPECT_EQ(ranks.Step({{4, 2}}), (Vector{4, 0}));
    EXPECT_EQ(ranks.state(0, "u"), (Vector{0, 2}));
    EXPECT_EQ(ranks.state(0, "v"), (Vector{0, 2}));
    EXPECT_EQ(ranks.Step({{0, 2}}), (Vector{0, 5}));
    EXPECT_EQ(ranks.state(0, "u"), (Vector{0, 0}));
    EXPECT_EQ(ranks.state(0, "v"), (Vector{0, 0}));
  }
}

TEST(Dgc, WithoutMaskingMomentumGoesOn) {
  const auto policy = Make<FeedbackPolicy>("dgc", {{"momentum", 0.5}, {"masking", false}});
  const auto codec = Make<Compressor>("topk", {{"ratio", 0.5}});
  SimulatedRanks ranks(policy.get(), codec.get(), SpecOf(2), 1);
  EXPECT_EQ(ranks.Step({{4, 2}}), (Vector{4, 0}));
  EXPECT_EQ(ranks.Step({{0, 2}}), (Vector{0, 5}));
  EXPECT_EQ(ranks.state(0, "u"), (Vector{2, 3}));
  EXPECT_EQ(ranks.state(0, "v"), (Vector{2, 0}));
}

// Without masking nothing of the momentum is lost: what was sent and what is left add up to the sum
// of the momenta u_t = m u_(t-1) + g_t. Multiples of 1/64 and m = 1/2 over ten steps are exact.
TEST(Dgc, SentPlusErrorIsTheSumOfMomenta) {
  const int64_t n = 40;
  const auto policy = Make<FeedbackPolicy>("dgc", {{"momentum", 0.5}, {"masking", false}});
  const auto codec = Make<Compressor>("topk", {{"ratio", 0.1}});
  SimulatedRanks ranks(policy.get(), codec.get(), SpecOf(n, DType::kF64), 1);
  Vector u(n), sum(n), sent(n);
  for (uint64_t step = 0; step < 10; ++step) {
    const auto grads = RandomGradients(1, n, step);
    ranks.Step(grads);
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
      u[i] = 0.5 * u[i] + grads[0][i];
      sum[i] += u[i];
      sent[i] += ranks.decoded()[0][i];
    }
  }
  const Vector v = ranks.state(0, "v");
  EXPECT_GT(Norm(v), 0.1);
  for (size_t i = 0; i < v.size(); ++i) EXPECT_NEAR(sent[i] + v[i], sum[i], 1e-6);
}

// The norm 5 of {3, 4} goes to 2.5.
TEST(Dgc, ClipsTheGradientOfEachRank) {
  const auto policy = Make<FeedbackPolicy>("dgc", {{"momentum", 0.0}, {"clip", 2.5}});
  const auto codec = Make<Compressor>("none");
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16}) {
    SimulatedRanks ranks(policy.get(), codec.get(), SpecOf(2, dtype), 2);
    EXPECT_EQ(ranks.Step({{3, 4}, {3, 4}}), (Vector{1.5, 2}));
    EXPECT_EQ(ranks.Step({{1, 0}, {0, 1}}), (Vector{0.5, 0.5}));
  }
}

TEST(Dgc, WarnsOfACompressorThatSendsEverything) {
  const auto policy = Make<FeedbackPolicy>("dgc");
  EXPECT_TRUE(policy->Warnings(SpecOf(9), *Make<Compressor>("topk")).empty());
  EXPECT_EQ(policy->Warnings(SpecOf(9), *Make<Compressor>("sign")).size(), 1u);
}

}  // namespace
}  // namespace tw::feedback_sim
