#include "examples/convergence/problems/image_mlp.h"

#include <algorithm>

#include "core/base/workspace.h"
#include "core/kernels/product.h"

namespace tw {
namespace {

enum Scratch : int { kInput, kHidden, kScores, kHiddenSlope, kTurnedW2 };

class Mlp : public ImageNetwork {
 public:
  Mlp(const ImageData* images, int64_t hidden)
      : images_(images),
        pixels_(static_cast<size_t>(images->numel())),
        hidden_(static_cast<size_t>(hidden)),
        classes_(static_cast<size_t>(images->classes)) {}

  size_t numel() const override { return (pixels_ + 1) * hidden_ + (hidden_ + 1) * classes_; }

  void Start(uint64_t seed, std::span<float> theta) const override {
    const Layers<float> at = LayersOf(theta);
    std::fill(at.b1.begin(), at.b1.end(), 0.0f);
    std::fill(at.b2.begin(), at.b2.end(), 0.0f);
    DrawWeights(seed, 1, pixels_, at.w1);
    DrawWeights(seed, 2, hidden_, at.w2);
  }

  std::span<float> Forward(std::span<const float> theta,
                           std::span<const int64_t> pictures) override {
    const Layers<const float> at = LayersOf(theta);
    rows_ = pictures.size();
    input_ = scratch_.Get<float>(kInput, rows_ * pixels_);
    activations_ = scratch_.Get<float>(kHidden, rows_ * hidden_);
    const std::span<float> scores = scratch_.Get<float>(kScores, rows_ * classes_);
    ReadPixels(*images_, pictures, input_);
    for (size_t r = 0; r < rows_; ++r) {
      std::copy(at.b1.begin(), at.b1.end(), activations_.subspan(r * hidden_).begin());
      std::copy(at.b2.begin(), at.b2.end(), scores.subspan(r * classes_).begin());
    }
    kernels::AddProduct(input_, at.w1, activations_, rows_, pixels_, hidden_);
    for (float& h : activations_) h = std::max(h, 0.0f);
    kernels::AddProduct(activations_, at.w2, scores, rows_, hidden_, classes_);
    return scores;
  }

  void Backward(std::span<const float> theta, std::span<const float> slopes,
                std::span<float> gradient) override {
    const Layers<const float> at = LayersOf(theta);
    const Layers<float> to = LayersOf(gradient);
    std::fill(gradient.begin(), gradient.end(), 0.0f);
    const std::span<float> hidden_slopes = scratch_.Get<float>(kHiddenSlope, rows_ * hidden_),
                           turned = scratch_.Get<float>(kTurnedW2, hidden_ * classes_);
    for (size_t h = 0; h < hidden_; ++h) {
      for (size_t c = 0; c < classes_; ++c) turned[c * hidden_ + h] = at.w2[h * classes_ + c];
    }
    std::fill(hidden_slopes.begin(), hidden_slopes.end(), 0.0f);
    kernels::AddProduct(slopes, turned, hidden_slopes, rows_, classes_, hidden_);
    PassRelu(activations_, hidden_slopes);
    kernels::AddTransposedProduct(activations_, slopes, to.w2, rows_, hidden_, classes_);
    kernels::AddTransposedProduct(input_, hidden_slopes, to.w1, rows_, pixels_, hidden_);
    for (size_t r = 0; r < rows_; ++r) {
      for (size_t h = 0; h < hidden_; ++h) to.b1[h] += hidden_slopes[r * hidden_ + h];
      for (size_t c = 0; c < classes_; ++c) to.b2[c] += slopes[r * classes_ + c];
    }
  }

 private:
  // Views into theta, or into its gradient.
  template <class T>
  struct Layers {
    std::span<T> w1, b1, w2, b2;
  };
  template <class T>
  Layers<T> LayersOf(std::span<T> theta) const {
    size_t begin = 0;
    const auto take = [&](size_t count) {
      begin += count;
      return theta.subspan(begin - count, count);
    };
    Layers<T> layers;
    layers.w1 = take(pixels_ * hidden_);
    layers.b1 = take(hidden_);
    layers.w2 = take(hidden_ * classes_);
    layers.b2 = take(classes_);
    return layers;
  }

  const ImageData* images_;
  size_t pixels_, hidden_, classes_;
  // Of the last batch: [rows, pixels | hidden units].
  size_t rows_ = 0;
  std::span<float> input_, activations_;
  Workspace scratch_;
};

}  // namespace

std::unique_ptr<ImageNetwork> ImageMlp(const ImageData* images, int64_t hidden) {
  return std::make_unique<Mlp>(images, hidden);
}

}  // namespace tw
