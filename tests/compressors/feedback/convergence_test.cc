// Small problems on which the theory says who converges. Parameters are fp64 and so is the state of
// the policies; bodies carry fp32, which costs a relative 1e-7 a message and no more.

#include <functional>
#include <limits>

#include "tests/compressors/feedback/simulated_ranks.h"

namespace tw::feedback_sim {
namespace {

using Gradient = std::function<Vector(size_t rank, const Vector& x)>;

// Gradient descent on the policy's estimate. Stops early once `done(x)`; *steps tells when.
Vector Descend(const FeedbackPolicy& policy, const Compressor& codec, int ranks, Vector x,
               double gamma, int max_steps, const Gradient& gradient,
               const std::function<bool(const Vector&)>& done = nullptr, int* steps = nullptr) {
  SimulatedRanks sim(&policy, &codec, SpecOf(static_cast<int64_t>(x.size()), DType::kF64), ranks);
  int step = 0;
  for (; step < max_steps && !(done && done(x)); ++step) {
    std::vector<Vector> grads;
    for (size_t r = 0; r < static_cast<size_t>(ranks); ++r) grads.push_back(gradient(r, x));
    const Vector estimate = sim.Step(grads);
    for (size_t i = 0; i < x.size(); ++i) x[i] -= gamma * estimate[i];
  }
  if (steps) *steps = step;
  return x;
}

// Beznosikov et al., "On biased compression", example 1: f_i = <a_i, x>^2 + |x|^2 / 4.
Vector ThreeQuadratics(size_t rank, const Vector& x) {
  static const double a[3][3] = {{-3, 2, 2}, {2, -3, 2}, {2, 2, -3}};
  const double product = a[rank][0] * x[0] + a[rank][1] * x[1] + a[rank][2] * x[2];
  Vector g(3);
  for (size_t i = 0; i < 3; ++i) g[i] = 2 * product * a[rank][i] + x[i] / 2;
  return g;
}

TEST(ThreeQuadraticsTop1, DivergeWithoutFeedbackByTheExactFactor) {
  const auto naive = Make<FeedbackPolicy>("none");
  const auto top1 = Make<Compressor>("topk", {{"ratio", 0.3}});
  const Vector x = Descend(*naive, *top1, 3, {1, 1, 1}, 0.05, 10, ThreeQuadratics);
  const double factor = std::pow(1 + 11 * 0.05 / 6, 10);
  EXPECT_NEAR(factor, 2.40381, 1e-5);
  EXPECT_NEAR(Norm(x) / std::sqrt(3.0), factor, 1e-6 * factor);
}

TEST(ThreeQuadraticsTop1, ConvergeWithFeedback) {
  const auto top1 = Make<Compressor>("topk", {{"ratio", 0.3}});
  const auto end = [&](const std::string& name, const Keys& keys, double gamma) {
    const auto policy = Make<FeedbackPolicy>(name, keys);
    return Norm(Descend(*policy, *top1, 3, {1, 1, 1}, gamma, 3000, ThreeQuadratics));
  };
  // EF14 goes on to the smallest fp32 message. The ef21 family adds up H and h apart, so a rounding
  // error of the first, large messages stays between them for ever: fp64's 1e-16 of those.
  for (const double gamma : {0.05, 0.02}) {
    EXPECT_LT(end("ef14", {}, gamma), 1e-20) << gamma;
    EXPECT_LT(end("ef21", {}, gamma), 1e-14) << gamma;
    EXPECT_LT(end("econtrol", {{"eta", "0.1"}}, gamma), 1e-14) << gamma;
  }
}

// Keeps one element in ten at random and scales it up: unbiased with omega = 9, every rank its own.
class ScaledRandomTenth : public Compressor {
 public:
  const CompressorTraits& traits() const override {
    static const CompressorTraits traits = {.merges = {Merge::kGather}, .unbiased = true};
    return traits;
  }
  double Delta(const TensorSpec&) const override { return 0; }
  double Omega(const TensorSpec&) const override { return 9; }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override { return 4 * spec.numel(); }
  StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView& message,
                                const CodecContext& context, MutableByteSpan body) const override {
    const RngStream rng = context.OwnStream();
    for (size_t i = 0; i < message.buffer.size(); ++i) {
      if (message.addend) message.buffer[i] += message.scale * message.addend[i];
      const float value = rng.Below(i, 10) == 0 ? 10 * message.buffer[i] : 0.0f;
      std::memcpy(body.data() + 4 * i, &value, 4);
      message.buffer[i] -= value;
    }
    return 4 * message.numel();
  }
  Status DecodeAdd(ByteSpan body, float scale, const CodecContext&,
                   std::span<float> out) const override {
    for (size_t i = 0; i < out.size(); ++i) {
      float value = 0;
      std::memcpy(&value, body.data() + 4 * i, 4);
      out[i] += scale * value;
    }
    return OkStatus();
  }
};

// n = 8, d = 100, f_i = a_i/2 |x - b_i|^2: the optima of the ranks differ.
struct Heterogeneous {
  static constexpr size_t kRanks = 8, kDim = 100;
  Vector a;
  std::vector<Vector> b;
  Vector optimum;
  Heterogeneous() : optimum(kDim) {
    const RngStream rng = RngStream::Of(1, RngPurpose::kTest, 0, 0, 0);
    double total = 0;
    for (size_t r = 0; r < kRanks; ++r) {
      a.push_back(0.2 + 1.8 * rng.Uniform(r));
      b.emplace_back(kDim);
      total += a[r];
      for (size_t i = 0; i < kDim; ++i) {
        b[r][i] = 2 * rng.Uniform(1000 * (r + 1) + i) - 1;
        optimum[i] += a[r] * b[r][i];
      }
    }
    for (double& x : optimum) x /= total;
  }
  Vector operator()(size_t r, const Vector& x) const {
    Vector g(kDim);
    for (size_t i = 0; i < kDim; ++i) g[i] = a[r] * (x[i] - b[r][i]);
    return g;
  }
};

TEST(Diana, ConvergesLinearlyWhereAnUnbiasedCodecAloneStalls) {
  const Heterogeneous problem;
  const ScaledRandomTenth codec;
  const double start = Norm(problem.optimum);
  const auto error = [&](const Vector& x) { return Distance(x, problem.optimum) / start; };
  const double gamma = 1.0 / (2.0 * (1 + 6 * 9.0 / Heterogeneous::kRanks));
  for (const std::string init : {"gradient", "zero"}) {
    const auto diana = Make<FeedbackPolicy>("diana", {{"init", init}});
    int steps = 0;
    Descend(
        *diana, codec, Heterogeneous::kRanks, Vector(Heterogeneous::kDim), gamma, 1000, problem,
        [&](const Vector& x) { return error(x) < 1e-10; }, &steps);
    EXPECT_LT(steps, 1000) << init;
  }
  const auto plain = Make<FeedbackPolicy>("none");
  EXPECT_GT(error(Descend(*plain, codec, Heterogeneous::kRanks, Vector(Heterogeneous::kDim), gamma,
                          2000, problem)),
            0.05);
}

TEST(Diana, TheMeanEstimateIsTheMeanOfTheOwnOnes) {
  const ScaledRandomTenth codec;
  const auto diana = Make<FeedbackPolicy>("diana");
  SimulatedRanks sim(diana.get(), &codec, SpecOf(40), 3);
  for (uint64_t step = 0; step < 30; ++step) sim.Step(RandomGradients(3, 40, step));
  EXPECT_GT(Norm(sim.state(0, "H")), 0.1);
  EXPECT_LT(Distance(sim.mean_state("h"), sim.state(0, "H")), 3e-6);
  for (int r = 1; r < 3; ++r) EXPECT_EQ(sim.state(r, "H"), sim.state(0, "H"));
  EXPECT_TRUE(diana->traits().needs_unbiased);
  EXPECT_TRUE(diana->traits().exact_mean);
}

TEST(Diana, WarnsAboveTheLimitOfAlpha) {
  const ScaledRandomTenth codec;
  EXPECT_TRUE(Make<FeedbackPolicy>("diana")->Warnings(SpecOf(40), codec).empty());
  EXPECT_TRUE(Make<FeedbackPolicy>("diana", {{"alpha", 0.1}})->Warnings(SpecOf(40), codec).empty());
  EXPECT_EQ(Make<FeedbackPolicy>("diana", {{"alpha", 0.2}})->Warnings(SpecOf(40), codec).size(),
            1u);
  EXPECT_FALSE(TryMake<FeedbackPolicy>("diana", {{"alpha", "0"}}).ok());
}

// Least squares with a gap between the ranks' optima (EControl's synthetic figure, smaller): with
// top-k, EF14 keeps an error that the gap sets, the ef21 family has none.
TEST(HeterogeneousTopK, Ef21FamilyConvergesWhereEf14KeepsAFloor) {
  const Heterogeneous problem;
  const auto topk = Make<Compressor>("topk", {{"ratio", 0.1}});
  const auto error = [&](const std::string& name) {
    const auto policy = Make<FeedbackPolicy>(name);
    return Distance(Descend(*policy, *topk, Heterogeneous::kRanks, Vector(Heterogeneous::kDim),
                            0.02, 6000, problem),
                    problem.optimum);
  };
  for (const std::string name : {"ef21", "ef21m", "econtrol", "econtrol_m"}) {
    EXPECT_LT(error(name), 1e-9) << name;
  }
  EXPECT_GT(error("ef14"), 1e-3);
}

}  // namespace
}  // namespace tw::feedback_sim
