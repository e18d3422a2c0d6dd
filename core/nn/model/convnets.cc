#include <numeric>

#include "core/nn/layers.h"
#include "core/nn/model/classifiers.h"
#include "core/nn/model/he_init.h"

namespace tw {
namespace {

bool TakesImages(InputKind kind) { return kind == InputKind::kImage; }

class Cnn : public Model {
 public:
  Cnn(const CnnConfig& c, const ModelInput& input, uint64_t seed) {
    conv1_ =
        register_module("conv1", std::make_shared<Conv2d>(input.channels, c.width, 5, 1, true));
    conv2_ = register_module("conv2", std::make_shared<Conv2d>(c.width, 2 * c.width, 5, 1, true));
    const int64_t left = (input.height / 4) * (input.width / 4) * 2 * c.width;
    fc_ = register_module("fc", std::make_shared<Linear>(left, 4 * c.width));
    head_ = register_module("head", std::make_shared<Linear>(4 * c.width, input.classes));
    InitHe(seed, *this);
  }
  at::Tensor Forward(const at::Tensor& x) override {
    at::Tensor h = at::max_pool2d(at::relu(conv1_->Forward(x)), 2);
    h = at::max_pool2d(at::relu(conv2_->Forward(h)), 2);
    return head_->Forward(at::relu(fc_->Forward(h.flatten(1))));
  }

 private:
  std::shared_ptr<Conv2d> conv1_, conv2_;
  std::shared_ptr<Linear> fc_, head_;
};

// Up to eight groups of equal size.
int64_t Groups(int64_t channels) { return std::gcd(channels, int64_t{8}); }

class ResidualBlock : public torch::nn::Module {
 public:
  ResidualBlock(int64_t in, int64_t out, int64_t stride) {
    conv1_ = register_module("conv1", std::make_shared<Conv2d>(in, out, 3, stride, false));
    norm1_ = register_module("norm1", std::make_shared<GroupNorm>(Groups(out), out));
    conv2_ = register_module("conv2", std::make_shared<Conv2d>(out, out, 3, 1, false));
    norm2_ = register_module("norm2", std::make_shared<GroupNorm>(Groups(out), out));
    if (in != out || stride != 1) {
      shortcut_ = register_module("shortcut", std::make_shared<Conv2d>(in, out, 1, stride, false));
    }
  }
  at::Tensor Forward(const at::Tensor& x) const {
    const at::Tensor h = at::relu(norm1_->Forward(conv1_->Forward(x)));
    return at::relu(norm2_->Forward(conv2_->Forward(h)) + (shortcut_ ? shortcut_->Forward(x) : x));
  }

 private:
  std::shared_ptr<Conv2d> conv1_, conv2_, shortcut_;
  std::shared_ptr<GroupNorm> norm1_, norm2_;
};

class Resnet : public Model {
 public:
  Resnet(const ResnetConfig& c, const ModelInput& input, uint64_t seed) {
    stem_ = register_module("stem", std::make_shared<Conv2d>(input.channels, c.width, 3, 1, false));
    norm_ = register_module("norm", std::make_shared<GroupNorm>(Groups(c.width), c.width));
    torch::nn::ModuleList list;
    int64_t in = c.width;
    for (int64_t stage = 0; stage < 3; ++stage) {
      const int64_t out = c.width << stage;
      for (int64_t i = 0; i < c.layers; ++i, in = out) {
        blocks_.push_back(std::make_shared<ResidualBlock>(in, out, stage > 0 && i == 0 ? 2 : 1));
        list->push_back(blocks_.back());
      }
    }
    register_module("blocks", list);
    head_ = register_module("head", std::make_shared<Linear>(in, input.classes));
    InitHe(seed, *this);
  }
  at::Tensor Forward(const at::Tensor& x) override {
    at::Tensor h = at::relu(norm_->Forward(stem_->Forward(x)));
    for (const auto& block : blocks_) h = block->Forward(h);
    return head_->Forward(h.mean({2, 3}));
  }

 private:
  std::shared_ptr<Conv2d> stem_;
  std::shared_ptr<GroupNorm> norm_;
  std::vector<std::shared_ptr<ResidualBlock>> blocks_;
  std::shared_ptr<Linear> head_;
};

}  // namespace

StatusOr<std::shared_ptr<Model>> CreateCnn(const CnnConfig& config, const ModelInput& input,
                                           uint64_t seed) {
  if (input.height < 4 || input.width < 4) {
    return ConfigError("model cnn pools twice: images of " + std::to_string(input.height) + " x " +
                       std::to_string(input.width) + " are too small, 4 x 4 are needed");
  }
  return std::shared_ptr<Model>(std::make_shared<Cnn>(config, input, seed));
}

StatusOr<std::shared_ptr<Model>> CreateResnet(const ResnetConfig& config, const ModelInput& input,
                                              uint64_t seed) {
  return std::shared_ptr<Model>(std::make_shared<Resnet>(config, input, seed));
}

TW_REGISTER_MODEL(cnn, CnnConfig, TakesImages, CreateCnn, "two convolutions and a hidden layer");
TW_REGISTER_MODEL(resnet, ResnetConfig, TakesImages, CreateResnet,
                  "small residual network with GroupNorm");

}  // namespace tw
