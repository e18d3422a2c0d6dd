#include "tests/core/nn/device/emulated_tensors.h"

#include <ATen/EmptyTensor.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_copy_from_and_resize_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/FakeGuardImpl.h>
#include <torch/library.h>

#include <atomic>

#include "core/api/tensor_scope.h"
#include "tests/cuda/emulation/emulated_device.h"

namespace tw {
namespace {

constexpr auto kType = at::kXPU;

// Never destroyed: LibTorch may hold tensors until the process ends.
EmulatedDevice& Device() {
  static auto* device = new EmulatedDevice;
  return *device;
}
kernels::DeviceKernels& Queue() {
  static auto* queue = Device().NewQueue(kernels::QueueStream::kDefault).release();
  return *queue;
}

std::atomic<int64_t> copies_to_host{0};
// Within an operator, whose own copies are not counted.
thread_local int operators = 0;
struct InOperator {
  InOperator() { ++operators; }
  ~InOperator() { --operators; }
};

// Counts, as LibTorch's allocators for devices do.
class Allocator final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &Freed, kEmulatedDevice};
    auto* piece = new Piece{Device().memory().Allocate(bytes), bytes};
    const std::lock_guard lock(mutex_);
    bytes_.increase(bytes);
    return {piece->memory, piece, &Freed, kEmulatedDevice};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    const HostMayLook look;
    default_copy_data(to, from, bytes);
  }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override {
    const std::lock_guard lock(mutex_);
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)] = bytes_;
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {
    const std::lock_guard lock(mutex_);
    bytes_.reset_peak();
  }

 private:
  struct Piece {
    uint8_t* memory;
    size_t bytes;
  };
  static void Freed(void* context);

  std::mutex mutex_;
  c10::CachingAllocator::Stat bytes_;
};

Allocator& Memory() {
  static auto* allocator = new Allocator;
  return *allocator;
}
void Allocator::Freed(void* context) {
  auto* piece = static_cast<Piece*>(context);
  if (!piece) return;
  Device().memory().Free(piece->memory);
  const std::lock_guard lock(Memory().mutex_);
  Memory().bytes_.decrease(piece->bytes);
  delete piece;
}

const c10::DispatchKeySet kKeys(c10::DispatchKey::XPU);

at::Tensor Empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &Memory(), kKeys, dtype.value_or(at::kFloat), format);
}
at::Tensor EmptyStrided(at::IntArrayRef size, at::IntArrayRef stride,
                        std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                        std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &Memory(), kKeys,
                                           dtype.value_or(at::kFloat));
}

// The same memory as a tensor of the host. Only while the host may look.
at::Tensor Seen(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(),
                       at::TensorOptions(tensor.scalar_type()));
}
at::Tensor CopyFrom(const at::Tensor& from, const at::Tensor& to, bool) {
  if (to.is_cpu() && operators == 0) ++copies_to_host;
  const HostMayLook look;
  Seen(to).copy_(Seen(from));
  return to;
}
at::Tensor CopyFromAndResize(const at::Tensor& from, const at::Tensor& to) {
  TORCH_CHECK(from.sizes() == to.sizes(), "an operator's result has another size");
  return CopyFrom(from, to, false);
}
at::Scalar NumberOf(const at::Tensor& tensor) {
  ++copies_to_host;
  const HostMayLook look;
  return Seen(tensor).item();
}

void CheckWhere(const c10::OperatorHandle& op, const at::Tensor& tensor) {
  TORCH_CHECK(!tensor.defined() || tensor.dim() == 0 || tensor.device().type() == kType,
              op.schema().name(), ": a tensor ", tensor.sizes(), " is on the host");
}
void OnCopies(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const size_t arguments = op.schema().arguments().size();
  for (size_t i = stack->size() - arguments; i < stack->size(); ++i) {
    const c10::IValue& argument = (*stack)[i];
    if (argument.isTensor()) CheckWhere(op, argument.toTensor());
    if (!argument.isTensorList()) continue;
    for (const at::Tensor& tensor : argument.toTensorVector()) CheckWhere(op, tensor);
  }
  const InOperator within;
  at::native::cpu_fallback(op, stack);
}

int64_t AttentionByProducts(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                            const std::optional<at::Tensor>&, double, bool, std::optional<double>,
                            bool) {
  return 0;
}

TORCH_LIBRARY_IMPL(_, XPU, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&OnCopies>());
}
TORCH_LIBRARY_IMPL(aten, XPU, m) {
  m.impl("empty.memory_format", TORCH_FN(Empty));
  m.impl("empty_strided", TORCH_FN(EmptyStrided));
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("_copy_from", TORCH_FN(CopyFrom));
  m.impl("_copy_from_and_resize", TORCH_FN(CopyFromAndResize));
  m.impl("_local_scalar_dense", TORCH_FN(NumberOf));
  m.impl("_fused_sdp_choice", TORCH_FN(AttentionByProducts));
}

c10::impl::DeviceGuardImplRegistrar guard(kType, new c10::impl::FakeGuardImpl<kType>);
const bool allocator_is_set = [] {
  c10::SetAllocator(kType, &Memory());
  return true;
}();

}  // namespace

EmulatedTensors::EmulatedTensors() : queue_(&Queue()) { SetTensorQueue(queue_); }
EmulatedTensors::~EmulatedTensors() {
  TW_CHECK_OK(queue_->Wait());
  SetTensorQueue(nullptr);
}
int64_t EmulatedTensors::copies_to_host() { return tw::copies_to_host; }

}  // namespace tw
