#pragma once
// Pictures to classify with a network, with clients.
//   f_m = mean over the client's pictures of the cross entropy of the network's scores
// One fp32 parameter "theta", the network's numbers one after the other; pixels enter as value /
// 255. The networks have kernels of their own: the bits are the same on any number of ranks.
// Metrics, of the pictures for evaluation: error (1 - accuracy), loss.

#include <memory>
#include <vector>

#include "core/api/problem.h"
#include "core/data/labeled_data.h"

namespace tw {

// A network as a function of one vector. Keeps what Forward leaves for Backward: not thread safe.
class ImageNetwork {
 public:
  virtual ~ImageNetwork() = default;
  virtual size_t numel() const = 0;
  // Where training begins.
  virtual void Start(uint64_t seed, std::span<float> theta) const = 0;
  // Scores of the pictures at these positions, [pictures, classes]; valid until the next call.
  virtual std::span<float> Forward(std::span<const float> theta,
                                   std::span<const int64_t> pictures) = 0;
  // Of a function of the scores that the last Forward gave, at the same theta: takes its slopes by
  // the scores and writes its gradient by theta, of which nothing is read.
  virtual void Backward(std::span<const float> theta, std::span<const float> slopes,
                        std::span<float> gradient) = 0;
};

// A layer's weights ~ N(0, 2 / fan_in), by the seed and the layer's number.
void DrawWeights(uint64_t seed, uint32_t layer, size_t fan_in, std::span<float> weights);
// pixels: [pictures, pixels of one], each value / 255.
void ReadPixels(const ImageData& images, std::span<const int64_t> pictures,
                std::span<float> pixels);

// slopes: by a = max(0, z), and then by z.
void PassRelu(std::span<const float> a, std::span<float> slopes);

struct ImageProblemOptions {
  int64_t batch = 32;  // pictures a gradient, drawn with replacement
  uint64_t seed = 1;   // of where training begins
};

class ImageProblem : public Problem {
 public:
  // clients[i] and `evaluated`: positions in `images`, which outlives the problem, and which the
  // network is for. ConfigError: a client without pictures, nothing to evaluate.
  static StatusOr<std::unique_ptr<ImageProblem>> Create(const ImageData* images,
                                                        std::vector<std::vector<int64_t>> clients,
                                                        std::vector<int64_t> evaluated,
                                                        std::unique_ptr<ImageNetwork> network,
                                                        const ImageProblemOptions& options);

  int num_clients() const override { return static_cast<int>(clients_.size()); }
  std::span<const TensorSpec> parameters() const override { return {&spec_, 1}; }
  void Start(std::span<const TensorView> x) override { network_->Start(options_.seed, x[0].f32()); }
  StatusOr<double> Gradient(const GradientCall& call, std::span<const TensorView> x,
                            std::span<const TensorView> out) override;
  std::vector<std::string> metrics() const override { return {"error", "loss"}; }
  Status Measure(std::span<const TensorView> x, std::span<double> out) override;

 private:
  ImageProblem(const ImageData* images, std::unique_ptr<ImageNetwork> network,
               const ImageProblemOptions& options);
  // Turns scores into the slopes of the summed loss; returns that loss.
  double CrossEntropy(std::span<float> scores, std::span<const int64_t> pictures, int64_t* wrong);

  const ImageData* images_;
  std::unique_ptr<ImageNetwork> network_;
  ImageProblemOptions options_;
  TensorSpec spec_;
  std::vector<std::vector<int64_t>> clients_;
  std::vector<int64_t> evaluated_, drawn_;
};

}  // namespace tw
