#pragma once
// A network of one hidden layer that classifies pictures, with clients.
//   z1 = b1 + a W1;  z2 = b2 + max(0, z1) W2;  loss = mean over the batch of cross-entropy(z2)
// One fp32 parameter "theta" = W1 [pixels, hidden], b1, W2 [hidden, classes], b2; a = pixel / 255.
// x0: W1, W2 ~ N(0, 2 / fan_in), biases 0, by `seed`. Own kernels: the bits are the same on any
// number of ranks.
// Metrics, of the pictures for evaluation: error (1 - accuracy), loss.

#include <memory>
#include <vector>

#include "core/api/problem.h"
#include "core/base/workspace.h"
#include "core/data/labeled_data.h"

namespace tw {

struct ImageMlpOptions {
  int64_t hidden = 64;
  int64_t batch = 32;  // pictures a gradient, drawn with replacement
  uint64_t seed = 1;
};

class ImageMlp : public Problem {
 public:
  // clients[i] and `evaluated`: positions in `images`, which outlives the problem. ConfigError: a
  // client without pictures, nothing to evaluate.
  static StatusOr<std::unique_ptr<ImageMlp>> Create(const ImageData* images,
                                                    std::vector<std::vector<int64_t>> clients,
                                                    std::vector<int64_t> evaluated,
                                                    const ImageMlpOptions& options);

  int num_clients() const override { return static_cast<int>(clients_.size()); }
  std::span<const TensorSpec> parameters() const override { return {&spec_, 1}; }
  void Start(std::span<const TensorView> x) override;
  StatusOr<double> Gradient(const GradientCall& call, std::span<const TensorView> x,
                            std::span<const TensorView> out) override;
  std::vector<std::string> metrics() const override { return {"error", "loss"}; }
  Status Measure(std::span<const TensorView> x, std::span<double> out) override;

 private:
  // Views into theta, or into its gradient.
  struct Layers {
    std::span<float> w1, b1, w2, b2;
  };
  // Of one batch.
  struct Activations {
    std::span<float> input, hidden, output;  // [rows, pixels | hidden units | classes]
  };

  ImageMlp(const ImageData* images, const ImageMlpOptions& options);
  Layers LayersOf(TensorView theta) const;
  Activations Forward(const Layers& at, std::span<const int64_t> pictures);
  // output becomes the gradient of the summed loss; returns that loss.
  double CrossEntropy(const Activations& a, std::span<const int64_t> pictures, int64_t* wrong);

  const ImageData* images_;
  ImageMlpOptions options_;
  size_t pixels_, hidden_, classes_;
  TensorSpec spec_;
  std::vector<std::vector<int64_t>> clients_;
  std::vector<int64_t> evaluated_, drawn_;
  Workspace scratch_;
};

// McMahan et al.'s split: sorted by label, cut into two pieces a client, dealt out at random. Most
// clients see two classes. DataError: fewer samples than pieces.
StatusOr<std::vector<std::vector<int64_t>>> TwoClassClients(std::span<const int32_t> labels,
                                                            int num_clients, uint64_t seed);

}  // namespace tw
