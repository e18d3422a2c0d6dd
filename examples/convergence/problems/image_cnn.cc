#include "examples/convergence/problems/image_cnn.h"

#include <algorithm>

#include "core/base/workspace.h"
#include "core/kernels/product.h"

// A batch lies with its pictures innermost, [channels, height, width, pictures]: a layer is then
// one product of its weights with a matrix of many columns, and what a place of a convolution sees
// is copied in runs of one number a picture.

namespace tw {
namespace {

struct Size {
  size_t channels, height, width;
  size_t places() const { return height * width; }
  size_t numel() const { return channels * places(); }
};

// The places a convolution takes of `in`, with its own channels.
Size EverySecond(const Size& in, size_t channels) {
  return {channels, (in.height + 1) / 2, (in.width + 1) / 2};
}

// visit(i, j) for each number j of `in` that the 3x3 window of some place covers; i is where it
// comes in [in.channels * 9, places].
template <class Visit>
void ForWindows(const Size& in, const Visit& visit) {
  const Size out = EverySecond(in, in.channels);
  size_t i = 0;
  for (size_t c = 0; c < in.channels; ++c) {
    for (size_t window = 0; window < 9; ++window) {
      for (size_t oy = 0; oy < out.height; ++oy) {
        // Before the first these wrap, and are too large as well.
        const size_t y = 2 * oy + window / 3 - 1;
        for (size_t ox = 0; ox < out.width; ++ox, ++i) {
          const size_t x = 2 * ox + window % 3 - 1;
          if (y < in.height && x < in.width) visit(i, (c * in.height + y) * in.width + x);
        }
      }
    }
  }
}

void Transpose(std::span<const float> from, size_t rows, size_t columns, std::span<float> to) {
  for (size_t c = 0; c < columns; ++c) {
    for (size_t r = 0; r < rows; ++r) to[c * rows + r] = from[r * columns + c];
  }
}

// Where a layer's numbers lie in theta: weights [outs, inner], then biases [outs].
struct Layer {
  size_t begin, outs, inner;
  size_t end() const { return begin + outs * (inner + 1); }
  template <class T>
  std::span<T> weights(std::span<T> theta) const {
    return theta.subspan(begin, outs * inner);
  }
  template <class T>
  std::span<T> biases(std::span<T> theta) const {
    return theta.subspan(begin + outs * inner, outs);
  }
};

enum Scratch : int {
  kPixels,
  kInput,
  kColumns1,
  kHidden1,
  kColumns2,
  kHidden2,
  kScores,
  kTurnedScores,
  kTurnedColumns,
  kTurnedSlopes,
  kHeadSlopes,
  kSlopes1,
  kSlopes2,
  kColumnSlopes
};

class Cnn : public ImageNetwork {
 public:
  Cnn(const ImageData* images, int64_t channels)
      : images_(images),
        input_{static_cast<size_t>(images->channels), static_cast<size_t>(images->height),
               static_cast<size_t>(images->width)},
        hidden1_(EverySecond(input_, static_cast<size_t>(channels))),
        hidden2_(EverySecond(hidden1_, 2 * hidden1_.channels)),
        conv1_{0, hidden1_.channels, 9 * input_.channels},
        conv2_{conv1_.end(), hidden2_.channels, 9 * hidden1_.channels},
        head_{conv2_.end(), static_cast<size_t>(images->classes), hidden2_.numel()} {}

  size_t numel() const override { return head_.end(); }

  void Start(uint64_t seed, std::span<float> theta) const override {
    std::fill(theta.begin(), theta.end(), 0.0f);
    uint32_t number = 0;
    for (const Layer& layer : {conv1_, conv2_, head_}) {
      DrawWeights(seed, ++number, layer.inner, layer.weights(theta));
    }
  }

  std::span<float> Forward(std::span<const float> theta,
                           std::span<const int64_t> pictures) override {
    pictures_ = pictures.size();
    const std::span<float> pixels = Get(kPixels, input_.numel()),
                           input = Get(kInput, input_.numel());
    ReadPixels(*images_, pictures, pixels);
    Transpose(pixels, pictures_, input_.numel(), input);
    columns1_ = Unfold(kColumns1, input_, input);
    a1_ = Apply(conv1_, theta, columns1_, kHidden1);
    for (float& a : a1_) a = std::max(a, 0.0f);
    columns2_ = Unfold(kColumns2, hidden1_, a1_);
    a2_ = Apply(conv2_, theta, columns2_, kHidden2);
    for (float& a : a2_) a = std::max(a, 0.0f);
    const std::span<float> scores = Apply(head_, theta, a2_, kScores),
                           turned = Get(kTurnedScores, head_.outs);
    Transpose(scores, head_.outs, pictures_, turned);
    return turned;
  }

  void Backward(std::span<const float> theta, std::span<const float> slopes,
                std::span<float> gradient) override {
    std::fill(gradient.begin(), gradient.end(), 0.0f);
    const std::span<float> head_slopes = Get(kHeadSlopes, head_.outs);
    Transpose(slopes, pictures_, head_.outs, head_slopes);
    AddGradient(head_, head_slopes, a2_, gradient);
    const std::span<float> slopes2 = InputSlopes(head_, theta, head_slopes, kSlopes2);
    PassRelu(a2_, slopes2);
    AddGradient(conv2_, slopes2, columns2_, gradient);
    const std::span<float> slopes1 =
        Fold(hidden1_, InputSlopes(conv2_, theta, slopes2, kColumnSlopes));
    PassRelu(a1_, slopes1);
    AddGradient(conv1_, slopes1, columns1_, gradient);
  }

 private:
  // `numel` numbers a picture.
  std::span<float> Get(Scratch slot, size_t numel) {
    return scratch_.Get<float>(slot, numel * pictures_);
  }

  // What each place of a convolution sees: [in.channels * 9, places, pictures], 0 beyond the edges.
  std::span<float> Unfold(Scratch slot, const Size& in, std::span<const float> a) {
    const std::span<float> columns =
        Get(slot, 9 * in.channels * EverySecond(in, in.channels).places());
    std::fill(columns.begin(), columns.end(), 0.0f);
    ForWindows(in, [n = pictures_, from = a.data(), to = columns.data()](size_t i, size_t j) {
      std::copy_n(from + j * n, n, to + i * n);
    });
    return columns;
  }
  // Its transpose: the slopes by what was unfolded.
  std::span<float> Fold(const Size& in, std::span<const float> columns) {
    const std::span<float> slopes = Get(kSlopes1, in.numel());
    std::fill(slopes.begin(), slopes.end(), 0.0f);
    ForWindows(in, [n = pictures_, from = columns.data(), to = slopes.data()](size_t i, size_t j) {
      for (size_t p = 0; p < n; ++p) to[j * n + p] += from[i * n + p];
    });
    return slopes;
  }

  // W columns + b: [outs, as many as there are columns].
  std::span<float> Apply(const Layer& layer, std::span<const float> theta,
                         std::span<const float> columns, Scratch slot) {
    const size_t count = columns.size() / layer.inner;
    const std::span<float> out = scratch_.Get<float>(slot, layer.outs * count);
    const std::span<const float> biases = layer.biases(theta);
    for (size_t o = 0; o < layer.outs; ++o) {
      std::fill_n(out.begin() + static_cast<ptrdiff_t>(o * count), count, biases[o]);
    }
    kernels::AddProduct(layer.weights(theta), columns, out, layer.outs, layer.inner, count);
    return out;
  }
  // gradient += slopes columns^T, and for the biases the sum of slopes.
  void AddGradient(const Layer& layer, std::span<const float> slopes,
                   std::span<const float> columns, std::span<float> gradient) {
    const size_t count = columns.size() / layer.inner;
    const std::span<float> turned_slopes = scratch_.Get<float>(kTurnedSlopes, slopes.size()),
                           turned_columns = scratch_.Get<float>(kTurnedColumns, columns.size());
    Transpose(slopes, layer.outs, count, turned_slopes);
    Transpose(columns, layer.inner, count, turned_columns);
    kernels::AddTransposedProduct(turned_slopes, turned_columns, layer.weights(gradient), count,
                                  layer.outs, layer.inner);
    const std::span<float> biases = layer.biases(gradient);
    const float* from = turned_slopes.data();
    for (size_t i = 0; i < count; ++i) {
      for (float& bias : biases) bias += *from++;
    }
  }
  // W^T slopes.
  std::span<float> InputSlopes(const Layer& layer, std::span<const float> theta,
                               std::span<const float> slopes, Scratch slot) {
    const size_t count = slopes.size() / layer.outs;
    const std::span<float> out = scratch_.Get<float>(slot, layer.inner * count);
    std::fill(out.begin(), out.end(), 0.0f);
    kernels::AddTransposedProduct(layer.weights(theta), slopes, out, layer.outs, layer.inner,
                                  count);
    return out;
  }

  const ImageData* images_;
  Size input_, hidden1_, hidden2_;
  Layer conv1_, conv2_, head_;
  // Of the last batch.
  size_t pictures_ = 0;
  std::span<float> columns1_, a1_, columns2_, a2_;
  Workspace scratch_;
};

}  // namespace

std::unique_ptr<ImageNetwork> ImageCnn(const ImageData* images, int64_t channels) {
  return std::make_unique<Cnn>(images, channels);
}

}  // namespace tw
