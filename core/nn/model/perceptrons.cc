#include "core/nn/init.h"
#include "core/nn/layers.h"
#include "core/nn/model/classifiers.h"
#include "core/nn/model/he_init.h"

namespace tw {
namespace {

bool TakesSamples(InputKind kind) { return kind != InputKind::kTokens; }

class LinearModel : public Model {
 public:
  LinearModel(const LinearConfig& c, const ModelInput& input) {
    weight_ = register_parameter("weight", torch::zeros({input.classes, input.numel()}));
    if (c.bias) bias_ = register_parameter("bias", torch::zeros({input.classes}));
  }
  at::Tensor Forward(const at::Tensor& x) override {
    return at::linear(x.flatten(1), weight_, bias_);
  }

 private:
  at::Tensor weight_, bias_;
};

class Mlp : public Model {
 public:
  Mlp(const MlpConfig& c, const ModelInput& input, uint64_t seed) {
    torch::nn::ModuleList list;
    int64_t in = input.numel();
    for (int64_t i = 0; i < c.layers; ++i, in = c.width) {
      layers_.push_back(std::make_shared<Linear>(in, c.width));
      list->push_back(layers_.back());
    }
    register_module("layers", list);
    head_ = register_module("head", std::make_shared<Linear>(in, input.classes));
    InitHe(seed, *this);
  }
  at::Tensor Forward(const at::Tensor& x) override {
    at::Tensor h = x.flatten(1);
    for (const auto& layer : layers_) h = at::relu(layer->Forward(h));
    return head_->Forward(h);
  }

 private:
  std::vector<std::shared_ptr<Linear>> layers_;
  std::shared_ptr<Linear> head_;
};

}  // namespace

StatusOr<std::shared_ptr<Model>> CreateLinear(const LinearConfig& config, const ModelInput& input,
                                              uint64_t seed) {
  return std::shared_ptr<Model>(std::make_shared<LinearModel>(config, input));
}

StatusOr<std::shared_ptr<Model>> CreateMlp(const MlpConfig& config, const ModelInput& input,
                                           uint64_t seed) {
  return std::shared_ptr<Model>(std::make_shared<Mlp>(config, input, seed));
}

TW_REGISTER_MODEL(linear, LinearConfig, TakesSamples, CreateLinear,
                  "logistic regression, starts at 0");
TW_REGISTER_MODEL(mlp, MlpConfig, TakesSamples, CreateMlp, "fully connected layers with ReLU");

}  // namespace tw
