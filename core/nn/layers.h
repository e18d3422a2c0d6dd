#pragma once
// Layers with PyTorch's parameter names, shapes and arithmetic, but no initialisation of their own:
// weights start unset and the model fills them through core/nn/init.h (torch::nn's layers draw from
// the global generator). Not thread safe, like every torch::nn::Module.

#include <memory>
#include <optional>

#include "core/api/sketch.h"
#include "core/nn/linear_input.h"
#include "core/nn/torch.h"

namespace tw {

// y = x weight^T + bias, the bias in the weight's type
class Linear : public torch::nn::Module {
 public:
  Linear(int64_t in, int64_t out, bool with_bias = true);
  at::Tensor Forward(const at::Tensor& x) const;  // [..., in] -> [..., out]
  at::Tensor Forward(const PackedInput& x) const;

  // From now on the layer keeps for backward what `input` packs; null: x, as it does at first.
  void KeepInputAs(std::shared_ptr<const LinearInput> input);
  // Where the weight's gradient is one; null otherwise.
  const GradientSketch* sketch() const { return sketch_ ? &*sketch_ : nullptr; }
  // The weight's leaf in the weight's place, for those who ask autograd for gradients of a list.
  void PutLeaves(std::vector<at::Tensor>* parameters) const;

  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out] or undefined

 private:
  at::Tensor TypedBias() const;

  std::shared_ptr<const LinearInput> input_;
  std::optional<GradientSketch> sketch_;
};

class Embedding : public torch::nn::Module {
 public:
  Embedding(int64_t num, int64_t width);
  at::Tensor Forward(const at::Tensor& ids) const;  // int64 [...] -> [..., width]

  at::Tensor weight;  // [num, width]
};

// Mean and variance over the last dimension; of x's type, statistics in fp32. Starts as weight 1,
// bias 0.
class LayerNorm : public torch::nn::Module {
 public:
  explicit LayerNorm(int64_t width, double eps = 1e-5);
  at::Tensor Forward(const at::Tensor& x) const;  // [..., width]

  at::Tensor weight, bias;  // [width]

 private:
  double eps_;
};

// x / sqrt(mean(x^2) + eps) * weight in fp32, returned in x's type. Of a bf16 x it keeps no copy
// for backward that is wider. Starts as weight 1.
class RmsNorm : public torch::nn::Module {
 public:
  RmsNorm(int64_t width, double eps);
  at::Tensor Forward(const at::Tensor& x) const;  // [..., width]

  at::Tensor weight;  // [width]

 private:
  double eps_;
};

class Conv2d : public torch::nn::Module {
 public:
  Conv2d(int64_t in, int64_t out, int64_t kernel, int64_t stride, bool with_bias);
  at::Tensor Forward(
      const at::Tensor& x) const;  // [B, in, H, W] -> [B, out, H / stride, W / stride], odd kernels

  at::Tensor weight;  // [out, in, kernel, kernel]
  at::Tensor bias;    // [out] or undefined

 private:
  int64_t stride_;
};

// Starts as weight 1, bias 0.
class GroupNorm : public torch::nn::Module {
 public:
  GroupNorm(int64_t groups, int64_t channels);
  at::Tensor Forward(const at::Tensor& x) const;  // [B, channels, H, W]

  at::Tensor weight, bias;  // [channels]

 private:
  int64_t groups_;
};

}  // namespace tw
