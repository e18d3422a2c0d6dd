#include "tests/core/nn/device/emulated_tensors.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/MTIAHooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
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

constexpr auto kType = at::kMTIA;

// Never destroyed: LibTorch may hold tensors until the process ends.
EmulatedDevice& Device() {
  static auto* device = new EmulatedDevice;
  return *device;
}
kernels::DeviceKernels& Queue() {
  static auto* queue = Device().NewQueue(kernels::QueueStream::kDefault).release();
  return *queue;
}

std::atomic<int64_t> copies_to_host{0}, times_emptied{0};
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
  void emptyCache(c10::MempoolId_t) override { ++times_emptied; }
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

const c10::DispatchKeySet kKeys(c10::DispatchKey::MTIA);

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
at::Tensor& Copy(at::Tensor& to, const at::Tensor& from, bool) {
  if (to.is_cpu() && operators == 0) ++copies_to_host;
  const HostMayLook look;
  Seen(to).copy_(Seen(from));
  return to;
}
at::Tensor CopyBack(const at::Tensor& from, const at::Tensor& to) {
  TORCH_CHECK(from.sizes() == to.sizes(), "an operator's result has another size");
  at::Tensor out = to;
  return Copy(out, from, false);
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

// LibTorch leaves these to the device itself.
at::Tensor Convolution(const at::Tensor& x, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, at::IntArrayRef stride,
                       at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                       at::IntArrayRef output_padding, int64_t groups) {
  const InOperator within;
  const auto b = bias && bias->defined() ? std::optional(bias->cpu()) : std::nullopt;
  return at::convolution(x.cpu(), weight.cpu(), b, stride, padding, dilation, transposed,
                         output_padding, groups)
      .to(kEmulatedDevice);
}
std::tuple<at::Tensor, at::Tensor, at::Tensor> ConvolutionBackward(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
    at::IntArrayRef output_padding, int64_t groups, std::array<bool, 3> wanted) {
  const InOperator within;
  const int64_t outputs[] = {weight.size(0)};
  const auto [dx, dw, db] =
      at::convolution_backward(dy.cpu(), x.cpu(), weight.cpu(), at::IntArrayRef(outputs), stride,
                               padding, dilation, transposed, output_padding, groups, wanted);
  const auto moved = [](const at::Tensor& t) { return t.defined() ? t.to(kEmulatedDevice) : t; };
  return {moved(dx), moved(dw), moved(db)};
}

TORCH_LIBRARY_IMPL(_, MTIA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&OnCopies>());
}
TORCH_LIBRARY_IMPL(aten, MTIA, m) {
  m.impl("empty.memory_format", TORCH_FN(Empty));
  m.impl("empty_strided", TORCH_FN(EmptyStrided));
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("copy_", TORCH_FN(Copy));
  m.impl("_copy_from_and_resize", TORCH_FN(CopyBack));
  m.impl("_local_scalar_dense", TORCH_FN(NumberOf));
  m.impl("convolution_overrideable", TORCH_FN(Convolution));
  m.impl("convolution_backward_overrideable", TORCH_FN(ConvolutionBackward));
}

struct Hooks : at::MTIAHooksInterface {
  explicit Hooks(at::MTIAHooksArgs) {}
  bool hasMTIA() const override { return true; }
  at::DeviceIndex deviceCount() const override { return 1; }
  at::DeviceIndex getCurrentDevice() const override { return 0; }
  bool isPinnedPtr(const void*) const override { return false; }
  // torch::manual_seed seeds it; nobody draws from it.
  const at::Generator& getDefaultGenerator(at::DeviceIndex) const override {
    static const at::Generator generator = at::detail::createCPUGenerator();
    return generator;
  }
};
at::RegistererMTIAHooksRegistry hooks("MTIAHooks", at::MTIAHooksRegistry(),
                                      at::RegistererMTIAHooksRegistry::DefaultCreator<Hooks>);

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
int64_t EmulatedTensors::times_emptied() { return tw::times_emptied; }

}  // namespace tw
