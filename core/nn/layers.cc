#include "core/nn/layers.h"

namespace tw {

Linear::Linear(int64_t in, int64_t out, bool with_bias) {
  weight = register_parameter("weight", torch::empty({out, in}));
  if (with_bias) bias = register_parameter("bias", torch::zeros({out}));
}
at::Tensor Linear::Forward(const at::Tensor& x) const { return Forward(PackInput(input_, x)); }
at::Tensor Linear::Forward(const PackedInput& x) const {
  if (!x.input) return at::linear(x.x, weight, bias);
  return x.input->Linear(x, weight, bias, sketch_ ? sketch_->leaf : at::Tensor());
}
void Linear::KeepInputAs(std::shared_ptr<const LinearInput> input) {
  input_ = std::move(input);
  sketch_.reset();
  if (!input_ || !input_->sketches()) return;
  const at::Tensor zero = torch::zeros({1}, torch::dtype(torch::kFloat).device(weight.device()))
                              .expand({weight.size(0), input_->gradient_columns()});
  sketch_ = GradientSketch{zero.detach().requires_grad_(), input_.get()};
}
void Linear::PutLeaves(std::vector<at::Tensor>* parameters) const {
  for (at::Tensor& p : *parameters) {
    if (sketch_ && p.is_same(weight)) p = sketch_->leaf;
  }
}

Embedding::Embedding(int64_t num, int64_t width) {
  weight = register_parameter("weight", torch::empty({num, width}));
}
at::Tensor Embedding::Forward(const at::Tensor& ids) const { return at::embedding(weight, ids); }

LayerNorm::LayerNorm(int64_t width, double eps) : eps_(eps) {
  weight = register_parameter("weight", torch::ones({width}));
  bias = register_parameter("bias", torch::zeros({width}));
}
at::Tensor LayerNorm::Forward(const at::Tensor& x) const {
  return at::layer_norm(x, weight.sizes(), weight, bias, eps_);
}

RmsNorm::RmsNorm(int64_t width, double eps) : eps_(eps) {
  weight = register_parameter("weight", torch::ones({width}));
}
at::Tensor RmsNorm::Forward(const at::Tensor& x) const {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps_);
  return weight * (wide * scale).to(x.scalar_type());
}

Conv2d::Conv2d(int64_t in, int64_t out, int64_t kernel, int64_t stride, bool with_bias)
    : stride_(stride) {
  weight = register_parameter("weight", torch::empty({out, in, kernel, kernel}));
  if (with_bias) bias = register_parameter("bias", torch::zeros({out}));
}
at::Tensor Conv2d::Forward(const at::Tensor& x) const {
  return at::conv2d(x, weight, bias, /*stride=*/stride_, /*padding=*/weight.size(2) / 2);
}

GroupNorm::GroupNorm(int64_t groups, int64_t channels) : groups_(groups) {
  weight = register_parameter("weight", torch::ones({channels}));
  bias = register_parameter("bias", torch::zeros({channels}));
}
at::Tensor GroupNorm::Forward(const at::Tensor& x) const {
  return at::group_norm(x, groups_, weight, bias);
}

}  // namespace tw
