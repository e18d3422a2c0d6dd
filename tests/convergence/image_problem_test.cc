#include "examples/convergence/problems/image_problem.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>

#include "core/data/synthetic_samples.h"
#include "core/nn/torch.h"
#include "examples/convergence/problems/image_cnn.h"
#include "examples/convergence/problems/image_mlp.h"

namespace tw {
namespace {

using Clients = std::vector<std::vector<int64_t>>;
using MakeNetwork = std::unique_ptr<ImageNetwork> (*)(const ImageData* images, int64_t width);

std::vector<int64_t> Range(int64_t from, int64_t to) {
  std::vector<int64_t> out(static_cast<size_t>(to - from));
  std::iota(out.begin(), out.end(), from);
  return out;
}

struct Training {
  ImageData images = SyntheticImages(3, 60);
  std::unique_ptr<ImageProblem> problem;
  std::vector<float> x, g;
  TensorView at, to;

  Training(MakeNetwork make, int64_t width, int64_t batch) {
    auto made = ImageProblem::Create(&images, Clients{Range(0, 1), Range(1, 40)}, Range(40, 60),
                                     make(&images, width), {.batch = batch});
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

// Scores by LibTorch in fp64; parts of theta are taken in order, as [shape].
class Reference {
 public:
  explicit Reference(const std::vector<float>& theta)
      : theta_(torch::from_blob(const_cast<float*>(theta.data()),
                                {static_cast<int64_t>(theta.size())}, torch::kFloat)
                   .to(torch::kDouble)
                   .requires_grad_()) {}
  at::Tensor Take(at::IntArrayRef shape) {
    const int64_t numel =
        std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    begin_ += numel;
    return theta_.narrow(0, begin_ - numel, numel).view(shape);
  }
  const at::Tensor& theta() const { return theta_; }
  int64_t taken() const { return begin_; }

 private:
  at::Tensor theta_;
  int64_t begin_ = 0;
};

at::Tensor MlpScores(Reference& theta, const at::Tensor& a, int64_t hidden) {
  const int64_t pixels = a[0].numel();
  const at::Tensor w1 = theta.Take({pixels, hidden}), b1 = theta.Take({hidden}),
                   w2 = theta.Take({hidden, 10}), b2 = theta.Take({10});
  return at::addmm(b2, at::relu(at::addmm(b1, a.flatten(1), w1)), w2);
}

at::Tensor CnnScores(Reference& theta, const at::Tensor& a, int64_t channels) {
  at::Tensor h = a;
  for (const int64_t outs : {channels, 2 * channels}) {
    const at::Tensor w = theta.Take({outs, h.size(1), 3, 3}), b = theta.Take({outs});
    h = at::relu(at::conv2d(h, w, b, /*stride=*/2, /*padding=*/1));
  }
  const at::Tensor w = theta.Take({10, h[0].numel()}), b = theta.Take({10});
  return at::linear(h.flatten(1), w, b);
}

// Colours, and sides that are even, odd and odd once halved.
ImageData Coloured(int64_t height, int64_t width) {
  ImageData images{.channels = 2, .height = height, .width = width, .classes = 10};
  for (int i = 0; i < 9; ++i) images.labels.push_back(i);
  for (int64_t i = 0; i < images.size() * images.numel(); ++i) {
    images.pixels.push_back(static_cast<uint8_t>(i % 3 == 0 ? 0 : (i * 37 + i / 11) % 256));
  }
  return images;
}

// |a - b| / |b|
double Distance(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

void ExpectLikeLibTorch(MakeNetwork make,
                        at::Tensor (*scores)(Reference&, const at::Tensor&, int64_t width)) {
  for (const auto& [height, width] : {std::pair{28, 28}, {7, 10}, {5, 1}}) {
    const ImageData images = Coloured(height, width);
    const std::unique_ptr<ImageNetwork> network = make(&images, 5);
    std::vector<float> theta(network->numel()), gradient(theta.size(), 7.0f);
    network->Start(4, theta);
    for (size_t i = 0; i < theta.size(); i += 3) theta[i] += 0.1f;  // biases as well
    const std::vector<int64_t> pictures = {8, 2, 2, 5, 0, 7, 1};
    const std::span<float> own = network->Forward(theta, pictures);
    const auto rows = static_cast<int64_t>(pictures.size());
    const at::Tensor found =
        torch::from_blob(own.data(), {rows, 10}, torch::kFloat).to(torch::kDouble);
    at::Tensor slopes = torch::empty({rows, 10}, torch::kFloat);
    for (int64_t i = 0; i < slopes.numel(); ++i) {
      slopes.data_ptr<float>()[i] = std::sin(static_cast<float>(i));
    }
    network->Backward(theta, {slopes.data_ptr<float>(), static_cast<size_t>(slopes.numel())},
                      gradient);

    const at::Tensor pixels =
        torch::from_blob(const_cast<uint8_t*>(images.pixels.data()),
                         {images.size(), images.channels, height, width}, torch::kByte)
            .to(torch::kDouble)
            .index_select(0, torch::tensor(pictures)) /
        255;
    Reference reference(theta);
    const at::Tensor expected = scores(reference, pixels, 5);
    EXPECT_EQ(reference.taken(), static_cast<int64_t>(theta.size()));
    EXPECT_LT(Distance(found, expected), 1e-6) << height;
    const at::Tensor by_theta = torch::autograd::grad(
        {(expected * slopes.to(torch::kDouble)).sum()}, {reference.theta()})[0];
    EXPECT_LT(
        Distance(
            torch::from_blob(gradient.data(), by_theta.sizes(), torch::kFloat).to(torch::kDouble),
            by_theta),
        1e-6)
        << height;
  }
}

TEST(ImageMlp, ScoresAndGradientAreLibTorchs) { ExpectLikeLibTorch(ImageMlp, MlpScores); }

TEST(ImageCnn, ScoresAndGradientAreLibTorchs) { ExpectLikeLibTorch(ImageCnn, CnnScores); }

TEST(ImageMlp, HasTheSizeOfThePaper) {
  EXPECT_EQ(Training(ImageMlp, 64, 1).x.size(), 50890u);
  EXPECT_EQ(Training(ImageMlp, 3, 1).x.size(), 784u * 3 + 3 + 3 * 10 + 10);
}

TEST(ImageCnn, HasTheSizeOfItsLayers) {
  EXPECT_EQ(Training(ImageCnn, 8, 1).x.size(), 80u + 1168 + 7850);
}

TEST(ImageProblem, GradientIsTheSlopeOfTheLoss) {
  Training net(ImageMlp, 7, 5);
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

TEST(ImageProblem, BatchesAreNamedByClientStepAndNumber) {
  for (const MakeNetwork make : {ImageMlp, ImageCnn}) {
    Training net(make, 4, 6);
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
}

TEST(ImageProblem, StepsAgainstTheGradientLearn) {
  for (const MakeNetwork make : {ImageMlp, ImageCnn}) {
    Training net(make, make == ImageMlp ? 16 : 4, 20);
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
}

TEST(ImageProblem, RefusesAnEmptyClientAndNothingToEvaluate) {
  const ImageData images = SyntheticImages(3, 8);
  const auto code = [&](Clients clients, std::vector<int64_t> evaluated) {
    return ExitCode(ImageProblem::Create(&images, std::move(clients), std::move(evaluated),
                                         ImageMlp(&images), {})
                        .status());
  };
  EXPECT_EQ(code({Range(0, 4), {}}, {1}), 2);
  EXPECT_EQ(code({Range(0, 4)}, {}), 2);
}

}  // namespace
}  // namespace tw
