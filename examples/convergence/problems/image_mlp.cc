#include "examples/convergence/problems/image_mlp.h"

#include <algorithm>
#include <cmath>

#include "core/base/normal.h"
#include "core/data/split.h"
#include "core/kernels/product.h"

namespace tw {
namespace {

enum Scratch : int { kInput, kHidden, kOutput, kHiddenSlope, kTurnedW2 };

}  // namespace

ImageMlp::ImageMlp(const ImageData* images, const ImageMlpOptions& options)
    : images_(images),
      options_(options),
      pixels_(static_cast<size_t>(images->numel())),
      hidden_(static_cast<size_t>(options.hidden)),
      classes_(static_cast<size_t>(images->classes)) {
  const size_t numel = (pixels_ + 1) * hidden_ + (hidden_ + 1) * classes_;
  spec_ = {0, "theta", {static_cast<int64_t>(numel)}, DType::kF32};
}

StatusOr<std::unique_ptr<ImageMlp>> ImageMlp::Create(const ImageData* images,
                                                     std::vector<std::vector<int64_t>> clients,
                                                     std::vector<int64_t> evaluated,
                                                     const ImageMlpOptions& options) {
  for (size_t c = 0; c < clients.size(); ++c) {
    if (clients[c].empty()) {
      return ConfigError("client " + std::to_string(c) + " has no pictures");
    }
  }
  if (evaluated.empty()) return ConfigError("there are no pictures to evaluate on");
  std::unique_ptr<ImageMlp> problem(new ImageMlp(images, options));
  problem->clients_ = std::move(clients);
  problem->evaluated_ = std::move(evaluated);
  return problem;
}

ImageMlp::Layers ImageMlp::LayersOf(TensorView theta) const {
  std::span<float> rest = theta.f32();
  const auto take = [&](size_t count) {
    const std::span<float> front = rest.first(count);
    rest = rest.subspan(count);
    return front;
  };
  Layers layers;
  layers.w1 = take(pixels_ * hidden_);
  layers.b1 = take(hidden_);
  layers.w2 = take(hidden_ * classes_);
  layers.b2 = take(classes_);
  return layers;
}

void ImageMlp::Start(std::span<const TensorView> x) {
  const Layers at = LayersOf(x[0]);
  std::fill(at.b1.begin(), at.b1.end(), 0.0f);
  std::fill(at.b2.begin(), at.b2.end(), 0.0f);
  const auto draw = [&](uint32_t layer, size_t fan_in, std::span<float> to) {
    std::vector<double> normal(to.size());
    AddNormal(RngStream::Of(options_.seed, RngPurpose::kModelInit, 0, layer, 0),
              std::sqrt(2.0 / static_cast<double>(fan_in)), normal);
    std::copy(normal.begin(), normal.end(), to.begin());
  };
  draw(1, pixels_, at.w1);
  draw(2, hidden_, at.w2);
}

ImageMlp::Activations ImageMlp::Forward(const Layers& at, std::span<const int64_t> pictures) {
  const size_t rows = pictures.size();
  const Activations a = {scratch_.Get<float>(kInput, rows * pixels_),
                         scratch_.Get<float>(kHidden, rows * hidden_),
                         scratch_.Get<float>(kOutput, rows * classes_)};
  for (size_t r = 0; r < rows; ++r) {
    const uint8_t* const from = images_->pixels.data() + static_cast<size_t>(pictures[r]) * pixels_;
    float* const to = a.input.data() + r * pixels_;
    for (size_t i = 0; i < pixels_; ++i) to[i] = static_cast<float>(from[i]) * (1.0f / 255);
    std::copy(at.b1.begin(), at.b1.end(), a.hidden.begin() + static_cast<ptrdiff_t>(r * hidden_));
    std::copy(at.b2.begin(), at.b2.end(), a.output.begin() + static_cast<ptrdiff_t>(r * classes_));
  }
  kernels::AddProduct(a.input, at.w1, a.hidden, rows, pixels_, hidden_);
  for (float& h : a.hidden) h = std::max(h, 0.0f);
  kernels::AddProduct(a.hidden, at.w2, a.output, rows, hidden_, classes_);
  return a;
}

double ImageMlp::CrossEntropy(const Activations& a, std::span<const int64_t> pictures,
                              int64_t* wrong) {
  double loss = 0;
  for (size_t r = 0; r < pictures.size(); ++r) {
    const std::span<float> z = a.output.subspan(r * classes_, classes_);
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

StatusOr<double> ImageMlp::Gradient(const GradientCall& call, std::span<const TensorView> x,
                                    std::span<const TensorView> out) {
  const std::vector<int64_t>& own = clients_[static_cast<size_t>(call.client)];
  const RngStream rng = call.noise();
  drawn_.resize(static_cast<size_t>(options_.batch));
  for (size_t i = 0; i < drawn_.size(); ++i) drawn_[i] = own[rng.Below(i, own.size())];
  const size_t rows = drawn_.size();
  const Layers at = LayersOf(x[0]), to = LayersOf(out[0]);
  const Activations a = Forward(at, drawn_);
  const float share = 1.0f / static_cast<float>(rows);
  const double loss = CrossEntropy(a, drawn_, nullptr) / static_cast<double>(rows);
  for (float& v : a.output) v *= share;

  std::fill_n(out[0].f32().begin(), out[0].numel, 0.0f);
  const std::span<float> slope = scratch_.Get<float>(kHiddenSlope, rows * hidden_),
                         turned = scratch_.Get<float>(kTurnedW2, hidden_ * classes_);
  for (size_t h = 0; h < hidden_; ++h) {
    for (size_t c = 0; c < classes_; ++c) turned[c * hidden_ + h] = at.w2[h * classes_ + c];
  }
  std::fill(slope.begin(), slope.end(), 0.0f);
  kernels::AddProduct(a.output, turned, slope, rows, classes_, hidden_);
  for (size_t i = 0; i < slope.size(); ++i) {
    if (!(a.hidden[i] > 0)) slope[i] = 0;
  }
  kernels::AddTransposedProduct(a.hidden, a.output, to.w2, rows, hidden_, classes_);
  kernels::AddTransposedProduct(a.input, slope, to.w1, rows, pixels_, hidden_);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t h = 0; h < hidden_; ++h) to.b1[h] += slope[r * hidden_ + h];
    for (size_t c = 0; c < classes_; ++c) to.b2[c] += a.output[r * classes_ + c];
  }
  return loss;
}

Status ImageMlp::Measure(std::span<const TensorView> x, std::span<double> out) {
  const Layers at = LayersOf(x[0]);
  constexpr size_t kRows = 64;
  int64_t wrong = 0;
  double loss = 0;
  for (size_t i = 0; i < evaluated_.size(); i += kRows) {
    const std::span<const int64_t> pictures =
        std::span<const int64_t>(evaluated_).subspan(i, std::min(kRows, evaluated_.size() - i));
    loss += CrossEntropy(Forward(at, pictures), pictures, &wrong);
  }
  const double n = static_cast<double>(evaluated_.size());
  out[0] = std::isfinite(loss) ? static_cast<double>(wrong) / n : loss;
  out[1] = loss / n;
  return OkStatus();
}

StatusOr<std::vector<std::vector<int64_t>>> TwoClassClients(std::span<const int32_t> labels,
                                                            int num_clients, uint64_t seed) {
  TW_ASSIGN_OR_RETURN(
      const auto pieces,
      Shards(labels, {.kind = "by_label", .seed = seed, .world_size = 2 * num_clients}));
  const std::vector<int64_t> order =
      Permutation(RngStream::Of(seed, RngPurpose::kDataSplit, 3, 0, kSharedRank),
                  static_cast<int64_t>(pieces.size()));
  std::vector<std::vector<int64_t>> clients(static_cast<size_t>(num_clients));
  for (size_t i = 0; i < order.size(); ++i) {
    const auto& piece = pieces[static_cast<size_t>(order[i])];
    clients[i / 2].insert(clients[i / 2].end(), piece.begin(), piece.end());
  }
  return clients;
}

}  // namespace tw
