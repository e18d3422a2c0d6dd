// none: a linear layer keeps its input.

#include "core/api/activation_codec.h"

namespace tw {
namespace {

class None : public ActivationCodec {
 public:
  bool keeps_input() const override { return true; }
  std::vector<at::Tensor> Pack(const at::Tensor& x, const InputKey&) const override { return {x}; }
  at::Tensor WeightGradient(std::span<const at::Tensor> packed, int64_t,
                            const at::Tensor& dy) const override {
    return dy.t().mm(packed[0]);
  }
};

StatusOr<std::unique_ptr<ActivationCodec>> Create(const NoConfig&) {
  return std::make_unique<None>();
}

TW_REGISTER(ActivationCodec, none, 0, NoConfig, Create, "linear layers keep their inputs");

}  // namespace
}  // namespace tw
