#include "examples/convergence/problems/image_mlp.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "core/data/synthetic_samples.h"

namespace tw {
namespace {

using Clients = std::vector<std::vector<int64_t>>;

std::vector<int64_t> Range(int64_t from, int64_t to) {
  std::vector<int64_t> out(static_cast<size_t>(to - from));
  std::iota(out.begin(), out.end(), from);
  return out;
}

struct Network {
  ImageData images = SyntheticImages(3, 60);
  std::unique_ptr<ImageMlp> problem;
  std::vector<float> x, g;
  TensorView at, to;

  explicit Network(const ImageMlpOptions& options) {
    auto made =
        ImageMlp::Create(&images, Clients{Range(0, 1), Range(1, 40)}, Range(40, 60), options);
    TW_CHECK_OK(made);
    problem = std::move(*made);
    x.resize(static_cast<size_t>(problem->parameters()[0].numel()));
    g.resize(x.size());
    at = ViewOf(x);
    to = ViewOf(g);
    problem->Start({&at, 1});
  }
  double Loss(const GradientCall& call) {
    const StatusOr<double> loss = problem->Gradient(call, {&at, 1}, {&to, 1});
    TW_CHECK_OK(loss);
    return *loss;
  }
};

TEST(ImageMlp, HasTheSizeOfThePaper) {
  EXPECT_EQ(Network({}).x.size(), 50890u);
  EXPECT_EQ(Network({.hidden = 3}).x.size(), 784u * 3 + 3 + 3 * 10 + 10);
}

TEST(ImageMlp, GradientIsTheSlopeOfTheLoss) {
  Network net({.hidden = 7, .batch = 5});
  const GradientCall call{.client = 1, .step = 4, .batch = 2};
  net.Loss(call);
  const std::vector<float> g = net.g, x = net.x;
  // Along the gradient itself, and along each layer's part of it alone.
  const std::vector<size_t> ends = {784 * 7, 785 * 7, 785 * 7 + 70, x.size()};
  size_t begin = 0;
  for (const size_t end : ends) {
    double square = 0;
    for (size_t i = begin; i < end; ++i) square += static_cast<double>(g[i]) * g[i];
    ASSERT_GT(square, 0);
    const auto moved = [&](double step) {
      net.x = x;
      for (size_t i = begin; i < end; ++i) net.x[i] += static_cast<float>(step * g[i]);
      net.at = ViewOf(net.x);
      return net.Loss(call);
    };
    const double step = 1e-3 / std::sqrt(square);
    EXPECT_NEAR((moved(step) - moved(-step)) / (2 * step) / square, 1, 5e-3) << end;
    begin = end;
  }
}

TEST(ImageMlp, BatchesAreNamedByClientStepAndNumber) {
  Network net({.hidden = 4, .batch = 6});
  const auto of = [&](const GradientCall& call) {
    net.Loss(call);
    return net.g;
  };
  EXPECT_EQ(of({1, 2, 0, 1}), of({1, 2, 0, 1}));
  for (const GradientCall& other : {GradientCall{1, 3, 0, 1}, {1, 2, 1, 1}, {1, 2, 0, 2}}) {
    EXPECT_NE(of({1, 2, 0, 1}), of(other));
  }
  EXPECT_EQ(of({0, 2, 0, 1}), of({0, 9, 3, 1}));  // one picture: always the same batch
}

TEST(ImageMlp, StepsAgainstTheGradientLearn) {
  Network net({.hidden = 16, .batch = 20});
  std::vector<double> before(2), after(2);
  TW_CHECK_OK(net.problem->Measure({&net.at, 1}, before));
  for (uint64_t step = 0; step < 300; ++step) {
    net.Loss({.client = 1, .step = step});
    for (size_t i = 0; i < net.x.size(); ++i) net.x[i] -= 0.05f * net.g[i];
  }
  TW_CHECK_OK(net.problem->Measure({&net.at, 1}, after));
  EXPECT_GT(before[0], 0.6);
  EXPECT_LT(after[0], 0.5 * before[0]);
  EXPECT_LT(after[1], before[1]);
}

TEST(ImageMlp, RefusesAnEmptyClientAndNothingToEvaluate) {
  const ImageData images = SyntheticImages(3, 8);
  EXPECT_EQ(ExitCode(ImageMlp::Create(&images, Clients{Range(0, 4), {}}, {1}, {}).status()), 2);
  EXPECT_EQ(ExitCode(ImageMlp::Create(&images, Clients{Range(0, 4)}, {}, {}).status()), 2);
}

TEST(TwoClassClients, EverySampleHasOneClientAndClientsFewClasses) {
  std::vector<int32_t> labels;
  for (int i = 0; i < 1000; ++i) labels.push_back(i * 7 % 10);
  const auto clients = TwoClassClients(labels, 20, 5);
  ASSERT_TRUE(clients.ok());
  std::vector<int> owners(labels.size());
  for (const auto& client : *clients) {
    std::set<int32_t> classes;
    for (const int64_t i : client) {
      ++owners[static_cast<size_t>(i)];
      classes.insert(labels[static_cast<size_t>(i)]);
    }
    EXPECT_EQ(client.size(), 50u);
    EXPECT_LE(classes.size(), 2u);
  }
  for (const int count : owners) EXPECT_EQ(count, 1);
  EXPECT_NE(*clients, *TwoClassClients(labels, 20, 6));
  EXPECT_EQ(ExitCode(TwoClassClients(labels, 501, 5).status()), 3);
}

}  // namespace
}  // namespace tw
