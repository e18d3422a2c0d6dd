#pragma once
// ActivationCodec: what a linear layer y = x W^T + b keeps of its input x for backward, in place of
// x. dx = dy W and db need none of it and stay exact; only the weight gradient is computed from
// what was kept, and may be a sketch of it (core/api/sketch.h). Immutable and thread safe; layers
// that have the same input share one packed copy.

#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/registry.h"
#include "core/base/tensor_view.h"

namespace tw {

// Which random numbers a codec may use: the same for one input of one step, on all ranks, in every
// micro-batch and when a forward pass runs again.
struct InputKey {
  uint64_t seed = 1;
  uint64_t step = 0;   // of the optimizer
  uint32_t input = 0;  // counts the distinct inputs of a model
};

class ActivationCodec {
 public:
  virtual ~ActivationCodec() = default;
  // True: x itself is kept, and layers are best left as they are. No method below is called then.
  virtual bool keeps_input() const { return false; }
  // x [tokens, n], floating, contiguous -> what is kept. Called without a graph.
  virtual std::vector<at::Tensor> Pack(const at::Tensor& x, const InputKey& key) const = 0;
  // dy [tokens, m], in x's dtype -> the weight gradient dy^T x as far as it is known, in that
  // dtype: [m, GradientColumns(n)].
  virtual at::Tensor WeightGradient(std::span<const at::Tensor> packed, int64_t n,
                                    const at::Tensor& dy) const = 0;
  // Fewer than n: the gradient is a sketch, and Expand is there.
  virtual int64_t GradientColumns(int64_t n) const { return n; }
  // value [m, n] <- keep * value + E(update [m, GradientColumns(n)]); see Expansion::Apply. Scratch
  // is LibTorch's, on `device`, where both are. REQUIRES, where that is not the host: called within
  // a DeviceScope of the tensors' queue (core/api/tensor_scope.h), and not within a Together, which
  // would come to the scratch when it is others' again.
  virtual void Expand(TensorView value, int64_t n, double keep, TensorView update,
                      const InputKey& key, at::Device device = at::kCPU) const;
};

}  // namespace tw
