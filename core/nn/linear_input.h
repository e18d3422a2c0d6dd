#pragma once
// The input that some linear layers share, and what is kept of it until backward: one packed copy
// for all of them (q, k and v; gate and up), made by an ActivationCodec.
//
//   forward    packed = codec.Pack(x);   y_i = x W_i^T + b_i           kept: packed, W_i
//   backward   dx_i = dy_i W_i,  db_i = sum of dy_i                     as a layer without a codec
//              has them, to the last bit;   dW_i = codec.WeightGradient(packed, dy_i)
//
// Where dW_i is a sketch it arrives at a leaf that stands in for W_i (core/api/sketch.h), and this
// object is the way back. Packed and dW_i have the type of x, which autocast casts first.
// Without a graph nothing is packed. Not thread safe, like every module.

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "core/api/activation_codec.h"
#include "core/api/optimizer.h"

namespace tw {

class LinearInput;

// x, and what layers keep of it. Made once for all layers that read x; do not keep.
struct PackedInput {
  at::Tensor x;                        // [..., n]; cast under autocast
  const LinearInput* input = nullptr;  // null: x itself is kept
  std::vector<at::Tensor> packed;      // of x as [tokens, n]
};

class LinearInput : public Expansion {
 public:
  // `step` is that of the optimizer, written by LinearInputs; `device` is where the weights are.
  LinearInput(std::shared_ptr<const ActivationCodec> codec, int64_t features, uint64_t seed,
              uint32_t id, std::shared_ptr<const uint64_t> step, at::Device device);

  PackedInput Pack(const at::Tensor& x) const;
  // x weight^T + bias. `sketch` is undefined where the codec's gradients have the weight's shape.
  at::Tensor Linear(const PackedInput& x, const at::Tensor& weight, const at::Tensor& bias,
                    const at::Tensor& sketch) const;

  int64_t gradient_columns() const { return codec_->GradientColumns(features_); }
  bool sketches() const { return gradient_columns() < features_; }
  void Apply(TensorView value, double keep, TensorView update) const override;

 private:
  InputKey key() const { return {seed_, *step_, id_}; }

  std::shared_ptr<const ActivationCodec> codec_;
  int64_t features_;
  uint64_t seed_;
  uint32_t id_;
  std::shared_ptr<const uint64_t> step_;
  at::Device device_;
};

// x as layers without a LinearInput take it.
inline PackedInput PackInput(const std::shared_ptr<const LinearInput>& input, const at::Tensor& x) {
  return input ? input->Pack(x) : PackedInput{x, nullptr, {}};
}

// The inputs of one model, in the order in which it asks for them: the same on all ranks.
class LinearInputs {
 public:
  LinearInputs() = default;
  // A null codec, or one that keeps inputs, makes none. `device` is where the model is.
  LinearInputs(std::shared_ptr<const ActivationCodec> codec, uint64_t seed,
               at::Device device = at::kCPU);
  // Null where layers keep their input.
  std::shared_ptr<const LinearInput> Make(int64_t features);
  // Before the forward passes of a step of the optimizer.
  void BeginStep(uint64_t step) { *step_ = step; }

 private:
  std::shared_ptr<const ActivationCodec> codec_;
  uint64_t seed_ = 1;
  at::Device device_ = at::kCPU;
  uint32_t count_ = 0;
  std::shared_ptr<uint64_t> step_ = std::make_shared<uint64_t>(0);
};

}  // namespace tw
