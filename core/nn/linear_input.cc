#include "core/nn/linear_input.h"

#include <ATen/autocast_mode.h>

#include <optional>

#include "core/nn/torch.h"

namespace tw {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

struct Work : torch::CustomClassHolder {
  Work(std::shared_ptr<const ActivationCodec> codec, const std::vector<at::Tensor>& packed)
      : codec(std::move(codec)), packed(packed) {}
  std::shared_ptr<const ActivationCodec> codec;
  std::vector<at::Tensor> packed;  // until forward has saved it
};

// In the type in which linear() would multiply.
at::Tensor Cast(const at::Tensor& t) {
  if (!t.defined()) return t;
  const at::DeviceType device = t.device().type();
  if (!at::autocast::is_autocast_enabled(device)) return t;
  return at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), t, device);
}

// Variables: x, weight, and bias and leaf where there are any; the weight's gradient goes to the
// leaf if there is one.
class KeptLinear : public torch::autograd::Function<KeptLinear> {
 public:
  static Variable forward(AutogradContext* context, const Variable& x, const Variable& weight,
                          const std::optional<at::Tensor>& bias,
                          const std::optional<at::Tensor>& leaf,
                          const c10::intrusive_ptr<Work>& work) {
    variable_list saved{weight};
    saved.insert(saved.end(), work->packed.begin(), work->packed.end());
    work->packed.clear();
    context->save_for_backward(saved);
    context->saved_data["work"] = at::IValue::make_capsule(work);
    context->saved_data["dx"] = x.requires_grad();
    context->saved_data["dw"] = leaf ? leaf->requires_grad() : weight.requires_grad();
    context->saved_data["db"] = bias && bias->requires_grad();
    context->saved_data["sketch"] = leaf.has_value();
    return at::linear(x, weight, bias);
  }

  static variable_list backward(AutogradContext* context, variable_list dy) {
    const auto work =
        c10::static_intrusive_pointer_cast<Work>(context->saved_data["work"].toCapsule());
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& weight = saved[0];
    const torch::NoGradGuard no_graph;
    const at::Tensor rows = dy[0].reshape({-1, weight.size(0)});
    variable_list gradients(5);
    if (context->saved_data["dx"].toBool()) {
      std::vector<int64_t> shape = dy[0].sizes().vec();
      shape.back() = weight.size(1);
      gradients[0] = rows.mm(weight).view(shape);
    }
    if (context->saved_data["dw"].toBool()) {
      const auto packed = std::span(saved).subspan(1);
      const at::Tensor dw = work->codec->WeightGradient(packed, weight.size(1), rows);
      const bool sketch = context->saved_data["sketch"].toBool();
      gradients[sketch ? 3 : 1] = sketch ? dw.to(at::kFloat) : dw;
    }
    if (context->saved_data["db"].toBool()) gradients[2] = rows.sum(0);
    return gradients;
  }
};

}  // namespace

LinearInput::LinearInput(std::shared_ptr<const ActivationCodec> codec, int64_t features,
                         uint64_t seed, uint32_t id, std::shared_ptr<const uint64_t> step,
                         at::Device device)
    : codec_(std::move(codec)),
      features_(features),
      seed_(seed),
      id_(id),
      step_(std::move(step)),
      device_(device) {}

PackedInput LinearInput::Pack(const at::Tensor& x) const {
  if (!at::GradMode::is_enabled()) return {x, nullptr, {}};
  PackedInput out{Cast(x), this, {}};
  const torch::NoGradGuard no_graph;
  out.packed = codec_->Pack(out.x.reshape({-1, features_}).contiguous(), key());
  return out;
}

at::Tensor LinearInput::Linear(const PackedInput& x, const at::Tensor& weight,
                               const at::Tensor& bias, const at::Tensor& sketch) const {
  at::Tensor w = Cast(weight);
  if (sketch.defined()) w = w.detach();
  const auto if_defined = [](const at::Tensor& t) {
    return t.defined() ? std::optional<at::Tensor>(t) : std::nullopt;
  };
  return KeptLinear::apply(x.x, w, if_defined(Cast(bias)), if_defined(sketch),
                           c10::make_intrusive<Work>(codec_, x.packed));
}

void LinearInput::Apply(TensorView value, double keep, TensorView update) const {
  codec_->Expand(value, features_, keep, update, key(), device_);
}

LinearInputs::LinearInputs(std::shared_ptr<const ActivationCodec> codec, uint64_t seed,
                           at::Device device)
    : codec_(std::move(codec)), seed_(seed), device_(device) {}

std::shared_ptr<const LinearInput> LinearInputs::Make(int64_t features) {
  if (!codec_ || codec_->keeps_input()) return nullptr;
  return std::make_shared<LinearInput>(codec_, features, seed_, count_++, step_, device_);
}

}  // namespace tw
