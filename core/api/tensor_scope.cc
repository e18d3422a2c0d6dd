#include "core/api/tensor_scope.h"

#include "core/base/status.h"

namespace tw {
namespace {

struct TensorQueue {
  DeviceQueue* queue = nullptr;
  std::recursive_mutex turn;
};

// Never destroyed: LibTorch's threads may outlive every global.
TensorQueue& Registered() {
  static auto* registered = new TensorQueue;
  return *registered;
}

std::unique_lock<std::recursive_mutex> TurnAt(const DeviceQueue* queue) {
  if (!queue) return {};
  return std::unique_lock(Registered().turn);
}

}  // namespace

void SetTensorQueue(DeviceQueue* queue) {
  TensorQueue& registered = Registered();
  const std::lock_guard turn(registered.turn);
  registered.queue = queue;
}

DeviceQueue* QueueOf(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return nullptr;
  DeviceQueue* const queue = Registered().queue;
  TW_CHECK(queue != nullptr);
  return queue;
}

TensorScope::TensorScope(const at::Tensor& tensor)
    : turn_(TurnAt(QueueOf(tensor))), scope_(QueueOf(tensor)) {}

}  // namespace tw
