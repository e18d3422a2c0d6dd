#include "core/engine/step_norms.h"

#include <utility>

#include "core/engine/norms.h"

namespace tw {

struct StepNorms::Number {
  explicit Number(DeviceQueue* queue) : queue(static_cast<kernels::DeviceKernels*>(queue)) {
    if (!queue) return;
    block = DeviceBlock(&queue->memory(), sizeof(double));
    pinned = queue->AllocatePinned(sizeof(double));
  }
  ~Number() {
    if (queue) queue->FreePinned(pinned);
  }
  Number(const Number&) = delete;
  Number& operator=(const Number&) = delete;

  double* on_device() const { return reinterpret_cast<double*>(block.data()); }
  void Measure(std::span<const TensorView> views) {
    const DeviceScope scope(queue);
    queue->Norm(views, on_device());
    queue->StartCopyOut(pinned, on_device(), sizeof(double));
    arrived = queue->Mark();
  }
  StatusOr<double> Read() {
    if (arrived) {
      TW_RETURN_IF_ERROR(queue->WaitFor(*arrived));
      arrived.reset();
      value = *reinterpret_cast<const double*>(pinned);
    }
    return std::exchange(value, 0.0);
  }

  kernels::DeviceKernels* const queue;  // null: the host
  DeviceBlock block;
  uint8_t* pinned = nullptr;
  std::unique_ptr<DeviceMark> arrived;
  double value = 0;  // on the host
};

StepNorms::StepNorms(const RunDevice& device)
    : gradients_(std::make_unique<Number>(device.training)),
      residuals_(std::make_unique<Number>(device.lane)) {}
StepNorms::~StepNorms() = default;

void StepNorms::MeasureGradients(std::span<const ParameterView> parameters) {
  if (gradients_->queue) return gradients_->Measure(GradientsOf(parameters));
  gradients_->value = GradientNorm(parameters);
}
StatusOr<double> StepNorms::ReadGradients() { return gradients_->Read(); }

void StepNorms::StartResiduals(const StateBag& state) {
  if (residuals_->queue) residuals_->Measure(ErrorMemoriesOf(state));
}
StatusOr<double> StepNorms::ReadResiduals(const StateBag& state) {
  if (residuals_->queue) return residuals_->Read();
  return ResidualNorm(state);
}

StepNorms::Clipping::Clipping(StepNorms& norms, double limit) {
  const Number& number = *norms.gradients_;
  if (limit <= 0) return;
  if (number.queue) {
    queue_ = number.queue;
    queue_->ClipSteps(limit, number.on_device());
  } else if (number.value > limit) {
    scale_ = static_cast<float>(limit / number.value);
  }
}
StepNorms::Clipping::~Clipping() {
  if (queue_) queue_->ClipSteps(0, nullptr);
}

}  // namespace tw
