// none: every part of a block keeps what its own backward needs.

#include "core/api/activations.h"

namespace tw {
namespace {

class KeepAll : public ActivationPolicy {
 public:
  at::Tensor RunBlock(const TensorFn& body, const at::Tensor& x,
                      const std::vector<at::Tensor>&) const override {
    return body(x);
  }
  int64_t KeptBytes(int64_t body_bytes, int64_t) const override { return body_bytes; }
};

StatusOr<std::unique_ptr<ActivationPolicy>> Create(const NoConfig&) {
  return std::make_unique<KeepAll>();
}

TW_REGISTER(ActivationPolicy, none, 0, NoConfig, Create,
            "every part keeps what its backward needs");

}  // namespace
}  // namespace tw
