#include <cmath>
#include <memory>

#include "core/base/bytes.h"
#include "core/kernels/lowrank.h"
#include "tests/compressors/codec_properties.h"
#include "tests/core/kernels/sample_data.h"

namespace tw {
namespace {

std::vector<uint8_t> EncodeRound(CodecUnderTest& h, int round, ByteSpan reduced,
                                 std::vector<float>& message, const float* addend = nullptr,
                                 float scale = 1.0f) {
  std::vector<uint8_t> body(static_cast<size_t>(h.codec->MaxEncodedBytes(h.spec, round)));
  const auto size = h.codec->EncodeRound(round, reduced, {message, addend, scale}, h.context, body);
  TW_CHECK_OK(size);
  TW_CHECK_EQ(*size, static_cast<int64_t>(body.size()));
  return body;
}

std::vector<float> Floats(ByteSpan body) {
  std::vector<float> x(body.size() / 4);
  std::memcpy(x.data(), body.data(), body.size());
  return x;
}

// Ranks that share nothing but what they exchange.
class World {
 public:
  World(int n, std::vector<int64_t> shape, const ConfigKeys& keys) {
    for (int r = 0; r < n; ++r) {
      ranks_.push_back(std::make_unique<CodecUnderTest>("powersgd", shape, keys));
      ranks_.back()->context.rank = r;
      ranks_.back()->context.world_size = n;
    }
  }
  CodecUnderTest& rank(int r) { return *ranks_[r]; }

  // messages[i] becomes rank i's residual; the mean that rank 0 decodes, after checking that all
  // ranks decode the same.
  std::vector<float> Step(uint64_t step, std::vector<std::vector<float>>& messages) {
    std::vector<std::vector<uint8_t>> bodies(ranks_.size());
    std::vector<uint8_t> sum;
    for (int round = 0; round < 2; ++round) {
      for (size_t r = 0; r < ranks_.size(); ++r) {
        ranks_[r]->context.step = step;
        bodies[r] = EncodeRound(*ranks_[r], round, sum, messages[r]);
      }
      sum = Sum(bodies);
    }
    std::vector<float> mean;
    for (auto& rank : ranks_) {
      CodecContext context = rank->context;
      context.mean = true;
      std::vector<float> out(messages[0].size(), 0.0f);
      TW_CHECK_OK(rank->codec->DecodeAdd(sum, 1.0f / ranks_.size(), context, out));
      if (mean.empty()) mean = out;
      EXPECT_EQ(out, mean);
    }
    return mean;
  }

 private:
  static std::vector<uint8_t> Sum(const std::vector<std::vector<uint8_t>>& bodies) {
    std::vector<float> total = Floats(bodies[0]);
    for (size_t r = 1; r < bodies.size(); ++r) {
      const auto x = Floats(bodies[r]);
      for (size_t i = 0; i < x.size(); ++i) total[i] += x[i];
    }
    std::vector<uint8_t> bytes(total.size() * 4);
    std::memcpy(bytes.data(), total.data(), bytes.size());
    return bytes;
  }
  std::vector<std::unique_ptr<CodecUnderTest>> ranks_;
};

// Orthonormal columns [rows, count].
std::vector<float> Orthonormal(int64_t rows, int64_t count, uint64_t seed) {
  auto p = RandomVector(rows * count, seed);
  std::vector<double> scratch(p.size());
  kernels::Orthonormalize(p, rows, count, scratch);
  return p;
}

// U diag(1/j) V^T, singular values 1, 1/2, 1/3, ...
std::vector<float> Harmonic(int64_t m, int64_t n, int64_t terms, uint64_t seed) {
  const auto u = Orthonormal(m, terms, seed), v = Orthonormal(n, terms, seed + 1);
  std::vector<float> out(m * n, 0.0f);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < terms; ++k) {
        sum += double{u[i * terms + k]} * v[j * terms + k] / double(k + 1);
      }
      out[i * n + j] = static_cast<float>(sum);
    }
  }
  return out;
}

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
  return std::sqrt(sum);
}

TEST(PowerSgd, GoldenBytesOfARankOneMatrix) {
  CodecUnderTest h("powersgd", {2, 3}, {{"rank", int64_t{1}}});
  // q = (1, 0, 0) by hand; M = (3, 4)^T (1, 2, 0).
  const auto q = h.context.state->Slot("q", {1, 3}, DType::kF32, Reshard::kReplicated).f32();
  q[0] = 1.0f;
  std::vector<float> m = {3, 6, 0, 4, 8, 0};
  const auto p = EncodeRound(h, 0, {}, m);
  EXPECT_EQ(p, (std::vector<uint8_t>{0, 0, 0x40, 0x40, 0, 0, 0x80, 0x40}));  // 3, 4
  const auto qt = EncodeRound(h, 1, p, m);
  const auto sent = Floats(qt);  // 5 (1, 2, 0)
  EXPECT_FLOAT_EQ(sent[0], 5.0f);
  EXPECT_FLOAT_EQ(sent[1], 10.0f);
  EXPECT_EQ(sent[2], 0.0f);
  for (float r : m) EXPECT_NEAR(r, 0.0f, 1e-6f);
}

TEST(PowerSgd, DeclaresItsExactSizes) {
  CodecUnderTest h("powersgd", {1000, 1000});
  EXPECT_EQ(h.codec->MaxEncodedBytes(h.spec, 0) + h.codec->MaxEncodedBytes(h.spec, 1), 32000);
  h.spec.shape = {64, 3, 3, 3};  // a convolution is 64 x 27
  EXPECT_EQ(h.codec->MaxEncodedBytes(h.spec, 0), 4 * 4 * 64);
  EXPECT_EQ(h.codec->MaxEncodedBytes(h.spec, 1), 4 * 4 * 27);
}

TEST(PowerSgd, IsNoSmallerThanDenseWhenTheRankReachesTheMatrix) {
  CodecUnderTest h("powersgd", {5, 3}, {{"rank", int64_t{8}}});
  EXPECT_GE(h.codec->MaxEncodedBytes(h.spec, 0) + h.codec->MaxEncodedBytes(h.spec, 1), 4 * 15);
  // It works all the same, and is exact.
  auto m = RandomVector(15, 1);
  const auto original = m;
  const auto decoded = h.Decode(h.Encode(m));
  for (int i = 0; i < 15; ++i) {
    EXPECT_NEAR(decoded[i], original[i], 1e-5f);
    EXPECT_NEAR(m[i], 0.0f, 1e-5f);
  }
}

TEST(PowerSgd, LeavesTheResidualAndFusesTheAddition) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{1, 1}, {1, 40}, {40, 1}, {7, 5}, {33, 65}, {4, 3, 2, 5}}) {
    const int64_t n = TensorSpec{.shape = shape}.numel();
    for (float magnitude : {1.0f, 1e-30f, 1e30f}) {
      const auto e = RandomVector(n, 1, magnitude), g = RandomVector(n, 2, magnitude);
      auto sum = e;
      for (int64_t i = 0; i < n; ++i) sum[i] = e[i] + -0.5f * g[i];
      CodecUnderTest h("powersgd", shape, {{"rank", int64_t{2}}});
      auto m = e;
      const auto body = h.Encode(m, g.data(), -0.5f);
      const auto decoded = h.Decode(body);
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_TRUE(std::isfinite(decoded[i]));
        ASSERT_EQ(m[i], sum[i] - decoded[i]) << i;
      }
    }
  }
}

TEST(PowerSgd, WarmStartConvergesToTheBestRankFour) {
  const int64_t m = 64, n = 48;
  const auto mean = Harmonic(m, n, n, 7);
  double tail = 0;
  for (int64_t j = 5; j <= n; ++j) tail += 1.0 / double(j * j);
  auto run = [&](bool warm) {
    World world(4, {m, n}, {{"rank", int64_t{4}}, {"warm_start", warm}});
    std::vector<double> ratios;
    for (uint64_t step = 1; step <= 6; ++step) {
      // Four noisy copies whose noise cancels in the mean.
      std::vector<std::vector<float>> messages(4, mean);
      for (int pair = 0; pair < 2; ++pair) {
        const auto noise = RandomVector(m * n, 100 * step + pair, 0.02f);
        for (int64_t i = 0; i < m * n; ++i) {
          messages[2 * pair][i] += noise[i];
          messages[2 * pair + 1][i] -= noise[i];
        }
      }
      ratios.push_back(Distance(world.Step(step, messages), mean) / std::sqrt(tail));
    }
    return ratios;
  };
  const auto warm = run(true), cold = run(false);
  EXPECT_LE(warm[5], 1.02);
  EXPECT_GE(warm[5], 0.9999);
  EXPECT_LT(warm[5], warm[0]);
  double cold_mean = 0;
  for (double c : cold) cold_mean += c / 6;
  EXPECT_GT(cold_mean, 1.2);
}

TEST(PowerSgd, ResidualsAndTheMeanAddUpToTheMessages) {
  for (int n : {1, 2, 3, 5}) {
    World world(n, {20, 30}, {{"rank", int64_t{3}}});
    for (uint64_t step = 1; step <= 3; ++step) {
      std::vector<std::vector<float>> messages;
      std::vector<double> total(600, 0.0);
      for (int r = 0; r < n; ++r) {
        messages.push_back(RandomVector(600, 10 * step + r));
        for (int i = 0; i < 600; ++i) total[i] += messages[r][i];
      }
      const auto mean = world.Step(step, messages);
      for (int i = 0; i < 600; ++i) {
        double sum = double{mean[i]} * n;
        for (int r = 0; r < n; ++r) sum += messages[r][i];
        ASSERT_NEAR(sum, total[i], 1e-5) << n << " ranks, " << i;
      }
    }
  }
}

TEST(PowerSgd, RanksHoldTheSameFactors) {
  World world(3, {20, 30}, {{"rank", int64_t{3}}});
  for (uint64_t step = 1; step <= 4; ++step) {
    std::vector<std::vector<float>> messages;
    for (int r = 0; r < 3; ++r) messages.push_back(RandomVector(600, 10 * step + r));
    world.Step(step, messages);
    for (const char* slot : {"codec/w/p", "codec/w/q"}) {
      const auto first = world.rank(0).bag.Find(slot)->view.raw();
      for (int r = 1; r < 3; ++r) {
        const auto other = world.rank(r).bag.Find(slot)->view.raw();
        EXPECT_TRUE(std::equal(first.begin(), first.end(), other.begin())) << slot;
      }
    }
  }
}

TEST(PowerSgd, DecodingTheOwnBodyDoesNotMoveTheWarmStart) {
  CodecUnderTest h("powersgd", {10, 12}, {{"rank", int64_t{2}}});
  auto m = RandomVector(120, 1);
  const auto body = h.Encode(m);
  const auto view = h.bag.Find("codec/w/q")->view.f32();
  const std::vector<float> before(view.begin(), view.end());
  h.Decode(body);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), view.begin()));
  h.context.mean = true;
  h.Decode(body);
  EXPECT_FALSE(std::equal(before.begin(), before.end(), view.begin()));
  for (int k = 0; k < 2; ++k) {
    EXPECT_NEAR(SquaredNorm({view.begin() + 12 * k, view.begin() + 12 * (k + 1)}), 1.0, 1e-6);
  }
}

TEST(PowerSgd, ZeroMatrixSendsZerosAndRecovers) {
  World world(2, {16, 12}, {{"rank", int64_t{2}}});
  std::vector<std::vector<float>> zeros(2, std::vector<float>(192, 0.0f));
  const auto mean = world.Step(1, zeros);
  for (float v : mean) EXPECT_EQ(v, 0.0f);
  for (float v : zeros[1]) EXPECT_EQ(v, 0.0f);
  // A matrix of rank two comes through whole at once.
  auto real = Harmonic(16, 12, 2, 3);
  std::vector<std::vector<float>> messages(2, real);
  EXPECT_LT(Distance(world.Step(2, messages), real), 1e-5);
}

TEST(PowerSgd, RankDeficientMatrixIsSentExactly) {
  World world(2, {16, 12}, {{"rank", int64_t{4}}});
  const auto matrix = Harmonic(16, 12, 1, 5);
  for (uint64_t step = 1; step <= 3; ++step) {
    std::vector<std::vector<float>> messages(2, matrix);
    EXPECT_LT(Distance(world.Step(step, messages), matrix), 1e-5) << step;
    for (float r : messages[0]) EXPECT_NEAR(r, 0.0f, 1e-5f);
  }
  // Then all four directions are needed, and none of them was lost.
  const auto full = Harmonic(16, 12, 4, 9);
  for (uint64_t step = 4; step <= 6; ++step) {
    std::vector<std::vector<float>> messages(2, full);
    EXPECT_LT(Distance(world.Step(step, messages), full), 1e-4) << step;
  }
}

TEST(PowerSgd, VanishingGradientsKeepTheirDirections) {
  // Without unit columns q would shrink with the square of the gradient and underflow.
  World world(1, {32, 24}, {{"rank", int64_t{3}}});
  auto matrix = Harmonic(32, 24, 3, 11);
  for (float& v : matrix) v *= 1e-25f;
  for (uint64_t step = 1; step <= 3; ++step) {
    std::vector<std::vector<float>> messages(1, matrix);
    EXPECT_LT(Distance(world.Step(step, messages), matrix), 1e-30) << step;
  }
}

TEST(PowerSgd, RefusesFactorsThatCannotBe) {
  CodecUnderTest h("powersgd", {6, 5}, {{"rank", int64_t{2}}});
  auto m = RandomVector(30, 1);
  auto body = h.Encode(m);
  ExpectDataLoss(h, ByteSpan(body).first(body.size() - 4));
  ExpectDataLoss(h, {});
  StoreLE(body.data() + 8, std::nanf(""));
  ExpectDataLoss(h, body);
  std::vector<uint8_t> room(static_cast<size_t>(h.codec->MaxEncodedBytes(h.spec, 1)));
  EXPECT_EQ(h.codec->EncodeRound(1, ByteSpan(body).first(8), {m}, h.context, room).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(PowerSgd, AnotherRankKeepsTheColumnsThatBothHave) {
  CodecUnderTest rank2("powersgd", {12, 10}, {{"rank", int64_t{2}}});
  std::vector<float> message = RandomFloats(120, 3);
  const auto body = rank2.Encode(message);
  rank2.context.mean = true;
  (void)rank2.Decode(body);
  const auto q_of = [&] {
    const auto q = rank2.bag.Find("codec/w/q")->view.f32();
    return std::vector<float>(q.begin(), q.end());
  };
  const std::vector<float> before = q_of();
  ASSERT_EQ(before.size(), 20u);

  CodecUnderTest rank4("powersgd", {12, 10}, {{"rank", int64_t{4}}});
  rank4.codec->TakeOver(rank2.context);
  const std::vector<float> more = q_of();
  ASSERT_EQ(more.size(), 40u);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), more.begin()));
  EXPECT_EQ(rank2.bag.Find("codec/w/p"), nullptr);
  double length = 0;
  for (size_t i = 20; i < 30; ++i) length += more[i] * more[i];
  EXPECT_NEAR(length, 1, 1e-5);

  rank2.codec->TakeOver(rank2.context);  // and back
  EXPECT_EQ(q_of(), before);
  CodecUnderTest other("powersgd", {12, 10});  // nothing to take over: the first step makes it
  other.codec->TakeOver(other.context);
  EXPECT_EQ(other.bag.Find("codec/w/q"), nullptr);
}

TEST(PowerSgd, OptionErrorsAreTheTailOfTheSingularValues) {
  // An outer product of orthogonal vectors a side: singular values 8, 4, 2, 1.
  std::vector<float> message(64 * 32, 0.0f);
  for (int j = 0; j < 4; ++j) message[static_cast<size_t>(j * 5 * 32 + j * 3)] = 8.0f / (1 << j);
  CodecUnderTest h("powersgd", {64, 32}, {{"rank", int64_t{2}}});
  CodecUnderTest one("powersgd", {64, 32}, {{"rank", int64_t{1}}});
  CodecUnderTest three("powersgd", {64, 32}, {{"rank", int64_t{3}}});
  const std::vector<const Compressor*> options = {one.codec.get(), h.codec.get(),
                                                  three.codec.get()};
  std::vector<double> squared(3);
  ASSERT_TRUE(h.codec->OptionErrors(options, message, h.context, squared).ok());
  EXPECT_NEAR(squared[0], 16 + 4 + 1, 1e-3);
  EXPECT_NEAR(squared[1], 4 + 1, 1e-3);
  EXPECT_NEAR(squared[2], 1, 1e-3);
}

}  // namespace
}  // namespace tw
