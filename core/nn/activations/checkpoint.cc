// checkpoint: a block keeps its input and runs again in backward (Chen et al., arXiv 1604.06174).
// Costs one more forward pass of the blocks; loss and gradients are the same to the last bit.

#include "core/nn/recompute.h"

namespace tw {
namespace {

class Checkpoint : public ActivationPolicy {
 public:
  at::Tensor RunBlock(const TensorFn& body, const at::Tensor& x,
                      const std::vector<at::Tensor>& parameters) const override {
    return Recompute(body, x, parameters);
  }
  int64_t KeptBytes(int64_t, int64_t input_bytes) const override { return input_bytes; }
};

StatusOr<std::unique_ptr<ActivationPolicy>> Create(const NoConfig&) {
  return std::make_unique<Checkpoint>();
}

TW_REGISTER(ActivationPolicy, checkpoint, 0, NoConfig, Create,
            "a block keeps its input only and runs again in backward");

}  // namespace
}  // namespace tw
