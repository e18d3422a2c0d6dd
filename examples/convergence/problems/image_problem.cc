#include "examples/convergence/problems/image_problem.h"

#include <algorithm>
#include <cmath>

#include "core/base/normal.h"

namespace tw {

void DrawWeights(uint64_t seed, uint32_t layer, size_t fan_in, std::span<float> weights) {
  std::vector<double> normal(weights.size());
  AddNormal(RngStream::Of(seed, RngPurpose::kModelInit, 0, layer, 0),
            std::sqrt(2.0 / static_cast<double>(fan_in)), normal);
  std::copy(normal.begin(), normal.end(), weights.begin());
}

void ReadPixels(const ImageData& images, std::span<const int64_t> pictures,
                std::span<float> pixels) {
  const auto count = static_cast<size_t>(images.numel());
  for (size_t p = 0; p < pictures.size(); ++p) {
    const uint8_t* const from = images.pixels.data() + static_cast<size_t>(pictures[p]) * count;
    float* const to = pixels.data() + p * count;
    for (size_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]) * (1.0f / 255);
  }
}

// Without a branch: which way it would go is anybody's guess.
void PassRelu(std::span<const float> a, std::span<float> slopes) {
  for (size_t i = 0; i < slopes.size(); ++i) slopes[i] = a[i] > 0 ? slopes[i] : 0;
}

ImageProblem::ImageProblem(const ImageData* images, std::unique_ptr<ImageNetwork> network,
                           const ImageProblemOptions& options)
    : images_(images),
      network_(std::move(network)),
      options_(options),
      spec_{0, "theta", {static_cast<int64_t>(network_->numel())}, DType::kF32} {}

StatusOr<std::unique_ptr<ImageProblem>> ImageProblem::Create(
    const ImageData* images, std::vector<std::vector<int64_t>> clients,
    std::vector<int64_t> evaluated, std::unique_ptr<ImageNetwork> network,
    const ImageProblemOptions& options) {
  for (size_t c = 0; c < clients.size(); ++c) {
    if (clients[c].empty()) {
      return ConfigError("client " + std::to_string(c) + " has no pictures");
    }
  }
  if (evaluated.empty()) return ConfigError("there are no pictures to evaluate on");
  std::unique_ptr<ImageProblem> problem(new ImageProblem(images, std::move(network), options));
  problem->clients_ = std::move(clients);
  problem->evaluated_ = std::move(evaluated);
  return problem;
}

double ImageProblem::CrossEntropy(std::span<float> scores, std::span<const int64_t> pictures,
                                  int64_t* wrong) {
  const auto classes = static_cast<size_t>(images_->classes);
  double loss = 0;
  for (size_t r = 0; r < pictures.size(); ++r) {
    const std::span<float> z = scores.subspan(r * classes, classes);
    const auto label = static_cast<size_t>(images_->labels[static_cast<size_t>(pictures[r])]);
    const auto top = std::max_element(z.begin(), z.end());
    if (wrong) *wrong += top - z.begin() != static_cast<ptrdiff_t>(label);
    const float shift = *top, own = z[label];
    float sum = 0;
    for (float& v : z) {
      v = std::exp(v - shift);
      sum += v;
    }
    loss += std::log(static_cast<double>(sum)) - static_cast<double>(own - shift);
    for (float& v : z) v /= sum;
    z[label] -= 1;
  }
  return loss;
}

StatusOr<double> ImageProblem::Gradient(const GradientCall& call, std::span<const TensorView> x,
                                        std::span<const TensorView> out) {
  const std::vector<int64_t>& own = clients_[static_cast<size_t>(call.client)];
  const RngStream rng = call.noise();
  drawn_.resize(static_cast<size_t>(options_.batch));
  for (size_t i = 0; i < drawn_.size(); ++i) drawn_[i] = own[rng.Below(i, own.size())];
  const double rows = static_cast<double>(drawn_.size());
  const std::span<float> scores = network_->Forward(x[0].f32(), drawn_);
  const double loss = CrossEntropy(scores, drawn_, nullptr) / rows;
  const float share = 1.0f / static_cast<float>(rows);
  for (float& v : scores) v *= share;
  network_->Backward(x[0].f32(), scores, out[0].f32());
  return loss;
}

Status ImageProblem::Measure(std::span<const TensorView> x, std::span<double> out) {
  constexpr size_t kRows = 64;
  int64_t wrong = 0;
  double loss = 0;
  for (size_t i = 0; i < evaluated_.size(); i += kRows) {
    const std::span<const int64_t> pictures =
        std::span<const int64_t>(evaluated_).subspan(i, std::min(kRows, evaluated_.size() - i));
    loss += CrossEntropy(network_->Forward(x[0].f32(), pictures), pictures, &wrong);
  }
  const double n = static_cast<double>(evaluated_.size());
  out[0] = std::isfinite(loss) ? static_cast<double>(wrong) / n : loss;
  out[1] = loss / n;
  return OkStatus();
}

}  // namespace tw
