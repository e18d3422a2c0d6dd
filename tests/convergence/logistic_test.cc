#include "examples/convergence/problems/logistic.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "core/data/libsvm.h"
#include "core/data/random_rows.h"

namespace tw {
namespace {

TensorView ViewOf(std::vector<double>& v) {
  return {v.data(), DType::kF64, static_cast<int64_t>(v.size())};
}

using Clients = std::vector<std::vector<int64_t>>;

std::vector<double> Gradient(Problem& problem, std::vector<double> x, const GradientCall& call,
                             double* loss = nullptr) {
  std::vector<double> out(x.size(), 7.0);
  const TensorView at = ViewOf(x), to = ViewOf(out);
  const StatusOr<double> value = problem.Gradient(call, {&at, 1}, {&to, 1});
  TW_CHECK_OK(value);
  if (loss) *loss = *value;
  return out;
}

std::vector<double> Measured(Problem& problem, std::vector<double> x) {
  std::vector<double> out(problem.metrics().size());
  const TensorView at = ViewOf(x);
  TW_CHECK_OK(problem.Measure({&at, 1}, out));
  return out;
}

std::vector<double> Somewhere(int64_t d) {
  std::vector<double> x(static_cast<size_t>(d));
  for (size_t j = 0; j < x.size(); ++j) x[j] = std::sin(static_cast<double>(3 * j + 1));
  return x;
}

std::unique_ptr<LogisticProblem> Make(const SparseRows& rows, const ShardOptions& shards,
                                      const LogisticOptions& options) {
  auto problem = LogisticProblem::Create(rows, shards, options);
  TW_CHECK_OK(problem);
  return std::move(*problem);
}

TEST(Logistic, GradientIsTheSlopeOfTheLoss) {
  const SparseRows dense = GaussianRows(3, 40, 9, 0.5), sparse = RandomSparseRows(3, 40, 30, 5);
  for (const SparseRows* rows : {&dense, &sparse}) {
    for (const LogisticOptions options : {LogisticOptions{.l2 = 0.1}, {.nonconvex = 0.2}}) {
      const auto problem = Make(*rows, {.kind = "by_label", .world_size = 4}, options);
      const std::vector<double> x = Somewhere(rows->features);
      const std::vector<double> g = Gradient(*problem, x, {.client = 1});
      for (size_t j = 0; j < x.size(); ++j) {
        std::vector<double> up = x, down = x;
        up[j] += 1e-5;
        down[j] -= 1e-5;
        double high = 0, low = 0;
        Gradient(*problem, up, {.client = 1}, &high);
        Gradient(*problem, down, {.client = 1}, &low);
        EXPECT_NEAR(g[j], (high - low) / 2e-5, 1e-8) << j;
      }
    }
  }
}

TEST(Logistic, MeasureIsTheMeanOverClients) {
  const auto problem = Make(RandomSparseRows(5, 61, 20, 4),
                            {.kind = "dirichlet", .alpha = 0.3, .world_size = 5}, {.l2 = 0.01});
  const std::vector<double> x = Somewhere(20);
  std::vector<double> mean(x.size());
  double loss = 0;
  for (int client = 0; client < 5; ++client) {
    double own = 0;
    const std::vector<double> g = Gradient(*problem, x, {.client = client}, &own);
    for (size_t j = 0; j < x.size(); ++j) mean[j] += g[j] / 5;
    loss += own / 5;
  }
  double square = 0;
  for (const double v : mean) square += v * v;
  const std::vector<double> measured = Measured(*problem, x);
  EXPECT_NEAR(measured[0], std::sqrt(square), 1e-12);
  EXPECT_NEAR(measured[1], loss, 1e-12);
}

TEST(Logistic, BatchesAreNamedByClientStepAndNumberAndAreUnbiased) {
  const SparseRows rows = GaussianRows(7, 60, 4, 0.5);
  const ShardOptions shards{.kind = "by_label", .world_size = 3};
  const auto all = Make(rows, shards, {.l2 = 0.1}),
             some = Make(rows, shards, {.l2 = 0.1, .batch = 5});
  const std::vector<double> x = Somewhere(4);
  const GradientCall call{.client = 2, .step = 9, .batch = 1, .seed = 4};
  const std::vector<double> once = Gradient(*some, x, call);
  EXPECT_EQ(once, Gradient(*some, x, call));
  for (GradientCall other : {GradientCall{1, 9, 1, 4}, {2, 8, 1, 4}, {2, 9, 0, 4}, {2, 9, 1, 5}}) {
    EXPECT_NE(once, Gradient(*some, x, other));
  }
  const std::vector<double> exact = Gradient(*all, x, call);
  std::vector<double> sum(4), squares(4);
  const int draws = 4000;
  for (int i = 0; i < draws; ++i) {
    const std::vector<double> g =
        Gradient(*some, x, {.client = 2, .step = static_cast<uint64_t>(i)});
    for (size_t j = 0; j < 4; ++j) {
      sum[j] += g[j] - exact[j];
      squares[j] += (g[j] - exact[j]) * (g[j] - exact[j]);
    }
  }
  for (size_t j = 0; j < 4; ++j) {
    EXPECT_GT(squares[j], 0);
    EXPECT_LT(std::abs(sum[j]), 5 * std::sqrt(squares[j])) << j;
  }
}

TEST(Logistic, HugeScoresAreFinite) {
  const auto rows = ParseLibsvm("+1 1:1e30\n-1 1:1e30\n+1 2:-1e30\n-1 2:1\n", "f");
  ASSERT_TRUE(rows.ok());
  const auto problem = Make(*rows, {.world_size = 1}, {});
  double loss = 0;
  for (const double v : Gradient(*problem, {1e30, -3}, {}, &loss)) EXPECT_TRUE(std::isfinite(v));
  EXPECT_TRUE(std::isfinite(loss));
}

TEST(Logistic, RefusesThreeClassesAndAnEmptyClient) {
  const auto three = ParseLibsvm("1 1:1\n2 1:1\n3 1:1\n", "f");
  ASSERT_TRUE(three.ok());
  EXPECT_EQ(ExitCode(LogisticProblem::Create(*three, ShardOptions{}, {}).status()), 2);
  const SparseRows rows = GaussianRows(1, 4, 2, 0);
  EXPECT_EQ(ExitCode(LogisticProblem::Create(rows, Clients{{0, 1}, {}}, {}).status()), 2);
  EXPECT_EQ(
      ExitCode(LogisticProblem::Create(rows, Clients{{0, 1}}, {})->get()->Minimize({}).status()),
      2);
}

// Rows e_j scaled: the largest curvature is known.
TEST(Logistic, SmoothnessIsTheLargestCurvature) {
  const auto rows = ParseLibsvm("+1 1:4\n-1 2:2\n+1 3:1\n-1 2:2\n", "f");
  ASSERT_TRUE(rows.ok());
  const auto problem = LogisticProblem::Create(*rows, Clients{{0, 1}, {2, 3}}, {.l2 = 0.5});
  ASSERT_TRUE(problem.ok());
  EXPECT_NEAR((*problem)->Smoothness(), 16.0 / 4 / 4 + 0.5, 1e-6);
  EXPECT_NEAR((*problem)->Smoothness(0), 16.0 / 2 / 4 + 0.5, 1e-6);
  EXPECT_NEAR((*problem)->Smoothness(1), 4.0 / 2 / 4 + 0.5, 1e-6);
}

TEST(Logistic, TheMinimumHasNoSlope) {
  const auto problem =
      Make(GaussianRows(11, 200, 12, 0.5), {.kind = "by_label", .world_size = 8}, {.l2 = 1e-2});
  std::vector<double> x;
  const StatusOr<double> value = problem->Minimize(&x);
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_LT(Measured(*problem, x)[0], 1e-12);
  EXPECT_DOUBLE_EQ(Measured(*problem, x)[1], *value);
}

// f* of raw features, labels +-1, no bias, l2 = 1e-3, from another program's Newton solve in fp64.
TEST(Logistic, MinimaOfPublicDataSets) {
  struct Known {
    const char* file;
    double minimum;
  };
  for (const Known known : {Known{"a9a", 0.333340752069},
                            {"w8a", 0.183367241026},
                            {"mushrooms-agaricus", 0.046505718720},
                            {"phishing-8405", 0.306465411842}}) {
    const std::string path = std::string(TW_SHARED_DATA) + "/libsvm/" + known.file + ".gz";
    if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not here";
    const auto rows = ReadLibsvm(path);
    ASSERT_TRUE(rows.ok()) << rows.status();
    const auto problem = Make(*rows, {.world_size = 1}, {.l2 = 1e-3});
    std::vector<double> x;
    const StatusOr<double> value = problem->Minimize(&x);
    ASSERT_TRUE(value.ok()) << value.status();
    EXPECT_NEAR(*value, known.minimum, 1e-12) << known.file;
  }
}

}  // namespace
}  // namespace tw
