#pragma once
// What a model keeps of a forward pass until backward. [memory] says it, the model is built with
// it, and nothing else knows.
//
//   Registry<ActivationPolicy>   how a whole block (a transformer layer) runs: as it is (none), or
//                                keeping its input only and running again in backward (checkpoint)
//   mlp_chunks, head_chunks      pieces of the sequence in which the MLPs, and the head with its
//                                loss, run; core/nn/recompute.h and core/nn/head_loss.h
//
// All of it leaves loss and gradients what they were, up to the order of sums.

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/registry.h"

namespace tw {

// [memory], beside the keys of the ActivationCodec (core/api/activation_codec.h) that `activations`
// may name in a policy's place; blocks then run as they are.
struct MemoryConfig {
  std::string activations = "none";
  int64_t mlp_chunks = 1;   // 0: chosen from the sizes
  int64_t head_chunks = 1;  // 0: chosen from the sizes
  std::string head_form = "fused";
  static FieldList<MemoryConfig> Fields();

  bool operator==(const MemoryConfig&) const = default;
};

// A function of x and of parameters it has bound; the same result whenever it is called.
using TensorFn = std::function<at::Tensor(const at::Tensor&)>;

// Immutable; shared by the blocks of a model.
class ActivationPolicy {
 public:
  virtual ~ActivationPolicy() = default;
  // body(x), and what autograd needs to go back through it. Only x and `parameters` require grad.
  virtual at::Tensor RunBlock(const TensorFn& body, const at::Tensor& x,
                              const std::vector<at::Tensor>& parameters) const = 0;
  // Bytes that stay until backward of a block whose parts would keep `body_bytes` and whose input
  // has `input_bytes` (which are among them).
  virtual int64_t KeptBytes(int64_t body_bytes, int64_t input_bytes) const = 0;
};

// What a forward and backward pass will take beside parameters and gradients, from shapes alone.
struct ActivationEstimate {
  struct Layer {
    std::string name;
    int64_t bytes;  // alive from its forward to its backward
  };
  std::vector<Layer> layers;  // in the order of the forward pass
  int64_t peak = 0;           // bytes at the worst moment, temporaries included
};

// The policy that config.activations names. ConfigError for an unknown one.
StatusOr<std::shared_ptr<const ActivationPolicy>> MakeActivationPolicy(const MemoryConfig& config);

}  // namespace tw
