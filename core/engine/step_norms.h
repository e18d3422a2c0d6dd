#pragma once
// The norms that a step records, and clipping by that of its gradients. On a device nobody waits
// for them before the update is launched: the factor is made where the norm is, and the update runs
// while the host reads. One thread at a time.

#include <memory>
#include <span>

#include "core/api/optimizer.h"
#include "core/base/device.h"
#include "core/base/state_bag.h"
#include "core/kernels/device_kernels.h"

namespace tw {

class StepNorms {
 public:
  explicit StepNorms(const RunDevice& device);
  ~StepNorms();
  StepNorms(const StepNorms&) = delete;
  StepNorms& operator=(const StepNorms&) = delete;

  // The norm of all gradients as one vector; on a device in the order of `training`. It lasts until
  // the next one.
  void MeasureGradients(std::span<const ParameterView> parameters);
  // The same number; 0 where none was measured since the last call. Waits for it, and has the
  // errors of what came before it.
  StatusOr<double> ReadGradients();
  // The norm of this rank's error memories. The lane is idle; on a device it starts first, and is
  // read later.
  void StartResiduals(const StateBag& state);
  StatusOr<double> ReadResiduals(const StateBag& state);

  // While it lives, the optimizer's steps on gradients of `norms` are clipped to `limit` (0: no).
  class Clipping {
   public:
    Clipping(StepNorms& norms, double limit);
    ~Clipping();
    Clipping(const Clipping&) = delete;
    Clipping& operator=(const Clipping&) = delete;
    float scale() const { return scale_; }  // of gradients, for UpdateContext

   private:
    kernels::DeviceKernels* queue_ = nullptr;  // where it clips itself
    float scale_ = 1;
  };

 private:
  // One number, of the host or on its way there.
  struct Number;

  std::unique_ptr<Number> gradients_, residuals_;
};

}  // namespace tw
