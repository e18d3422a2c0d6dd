#include "core/nn/layers.h"

namespace tw {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// LayerNorm of a bf16 x with fp32 weights on the host. LibTorch's own backward adds up dw and db in
// bf16 there, row by row; here its fp32 one runs on copies. Kept: x, mean and 1 / sigma of a row.
class HostLayerNorm : public torch::autograd::Function<HostLayerNorm> {
 public:
  static Variable forward(AutogradContext* context, const Variable& x, const Variable& weight,
                          const Variable& bias, double eps) {
    const auto [y, mean, scale] = at::native_layer_norm(x, weight.sizes(), weight, bias, eps);
    context->save_for_backward({x, weight, bias, mean, scale});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list dy) {
    const torch::NoGradGuard no_graph;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const auto [dx, dw, db] = at::native_layer_norm_backward(
        dy[0].to(at::kFloat), x.to(at::kFloat), weight.sizes(), saved[3].to(at::kFloat),
        saved[4].to(at::kFloat), weight, saved[2],
        {context->needs_input_grad(0), context->needs_input_grad(1), context->needs_input_grad(2)});
    return {dx.defined() ? dx.to(x.scalar_type()) : dx, dw, db, {}};
  }
};

// RMSNorm of an x narrower than fp32, with n = x * scale, scale = 1 / sqrt(mean(x^2) + eps):
//   forward    y = n w;   kept: x, w, one scale a row
//   backward   g = dy w,  dx = scale (g - n mean(g n)),  dw = sum of dy n
class NarrowRmsNorm : public torch::autograd::Function<NarrowRmsNorm> {
 public:
  static Variable forward(AutogradContext* context, const Variable& x, const Variable& weight,
                          double eps) {
    at::Tensor y = x.to(at::kFloat);
    const at::Tensor scale = at::rsqrt(y.square().mean(-1, /*keepdim=*/true) + eps);
    context->save_for_backward({x, weight, scale});
    return y.mul_(scale).mul_(weight).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* context, variable_list dy) {
    const torch::NoGradGuard no_graph;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &scale = saved[2];
    const at::Tensor n = x.to(at::kFloat).mul_(scale);
    at::Tensor g = dy[0].to(at::kFloat);
    variable_list gradients(3);
    if (context->needs_input_grad(1)) {
      gradients[1] = (g * n).flatten(0, -2).sum(0).to(weight.scalar_type());
    }
    if (context->needs_input_grad(0)) {
      g = g * weight;
      const at::Tensor mean = (g * n).mean(-1, /*keepdim=*/true);
      gradients[0] = g.sub_(n.mul_(mean)).mul_(scale).to(x.scalar_type());
    }
    return gradients;
  }
};

}  // namespace

Linear::Linear(int64_t in, int64_t out, bool with_bias) {
  weight = register_parameter("weight", torch::empty({out, in}));
  if (with_bias) bias = register_parameter("bias", torch::zeros({out}));
}
at::Tensor Linear::Forward(const at::Tensor& x) const { return Forward(PackInput(input_, x)); }
at::Tensor Linear::Forward(const PackedInput& x) const {
  if (!x.input) return at::linear(x.x, weight, TypedBias());
  return x.input->Linear(x, weight, TypedBias(), sketch_ ? sketch_->leaf : at::Tensor());
}
at::Tensor Linear::TypedBias() const {
  return bias.defined() ? bias.to(weight.scalar_type()) : bias;
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
  const at::ScalarType type = x.scalar_type();
  if (type == weight.scalar_type()) {
    return at::layer_norm(x, weight.sizes(), weight, bias, eps_);
  }
  // CUDA's kernel wants one type, and adds up in fp32.
  if (x.is_cpu()) return HostLayerNorm::apply(x, weight, bias, eps_);
  return at::layer_norm(x, weight.sizes(), weight.to(type), bias.to(type), eps_);
}

RmsNorm::RmsNorm(int64_t width, double eps) : eps_(eps) {
  weight = register_parameter("weight", torch::ones({width}));
}
at::Tensor RmsNorm::Forward(const at::Tensor& x) const {
  if (x.scalar_type() != at::kFloat) return NarrowRmsNorm::apply(x, weight, eps_);
  const at::Tensor scale = at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + eps_);
  return weight * (x * scale);
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
