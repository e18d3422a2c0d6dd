#pragma once
// Models that put one sample into a class: linear, mlp (images or rows), cnn and resnet (images).
// Weights start as He et al. (arXiv 1502.01852), N(0, sqrt(2 / fan_in)), and those of the last
// layer as N(0, sqrt(1 / fan_in)); biases 0, norms 1. None keeps running statistics: a step is a
// function of parameters and batch alone, and replicas have nothing else to agree on.

#include <memory>

#include "core/nn/model/model.h"

namespace tw {

// weight [classes, features], bias [classes]; starts at 0, so that the first step is the same
// whatever the seed.
struct LinearConfig {
  bool bias = true;
  static FieldList<LinearConfig> Fields() {
    return FieldList<LinearConfig>().Bool("bias", &LinearConfig::bias,
                                          "adds a constant to each score");
  }
};
StatusOr<std::shared_ptr<Model>> CreateLinear(const LinearConfig& config, const ModelInput& input,
                                              uint64_t seed);

// layers hidden layers of width ReLUs: layers.N.{weight, bias}, then head.{weight, bias}.
struct MlpConfig {
  int64_t layers = 2;
  int64_t width = 256;
  static FieldList<MlpConfig> Fields() {
    return FieldList<MlpConfig>()
        .Int("layers", &MlpConfig::layers, {0, 1024}, "hidden layers")
        .Int("width", &MlpConfig::width, {1, 1 << 20}, "ReLUs a hidden layer");
  }
};
StatusOr<std::shared_ptr<Model>> CreateMlp(const MlpConfig& config, const ModelInput& input,
                                           uint64_t seed);

// conv1 5x5 -> width, ReLU, pool 2; conv2 5x5 -> 2 width, ReLU, pool 2; fc -> 4 width, ReLU; head.
struct CnnConfig {
  int64_t width = 32;
  static FieldList<CnnConfig> Fields() {
    return FieldList<CnnConfig>().Int("width", &CnnConfig::width, {1, 4096},
                                      "channels of the first convolution");
  }
};
StatusOr<std::shared_ptr<Model>> CreateCnn(const CnnConfig& config, const ModelInput& input,
                                           uint64_t seed);

// The residual network of He et al. for small images (arXiv 1512.03385, section 4.2): a 3x3
// convolution, three stages of `layers` blocks with width, 2 width and 4 width channels, the mean
// over the image, head. GroupNorm (arXiv 1803.08494) stands where the paper has BatchNorm, whose
// running statistics would drift apart between replicas.
//   stem.weight, norm.{weight, bias}, blocks.N.{conv1, conv2}.weight, blocks.N.{norm1,
//   norm2}.{weight, bias}, blocks.N.shortcut.weight where the shape changes, head.{weight, bias}
struct ResnetConfig {
  int64_t layers = 1;
  int64_t width = 16;
  static FieldList<ResnetConfig> Fields() {
    return FieldList<ResnetConfig>()
        .Int("layers", &ResnetConfig::layers, {1, 256},
             "blocks a stage, three stages: 6 layers + 2 convolutions deep")
        .Int("width", &ResnetConfig::width, {1, 4096}, "channels of the first stage");
  }
};
StatusOr<std::shared_ptr<Model>> CreateResnet(const ResnetConfig& config, const ModelInput& input,
                                              uint64_t seed);

}  // namespace tw
