#pragma once
// Whether all that this rank is about to send in a step is finite. Of one thread, the lane's.

#include <span>

#include "core/base/status.h"
#include "core/base/tensor_view.h"

namespace tw {

class FiniteCheck {
 public:
  void Begin() { finite_ = true; }
  // Whether all that was looked at is finite, as far as that is known: on a device nobody waits for
  // the answer here.
  bool Look(std::span<const TensorView> vectors);
  // The answer. Waits for all work on the device, and has its errors.
  StatusOr<bool> Finite();

 private:
  bool finite_ = true;
};

}  // namespace tw
