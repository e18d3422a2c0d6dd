#pragma once
// Schedule: the factor on the base learning rate. Pure function of the step; thread safe.

#include "core/base/registry.h"

namespace tw {

class Schedule {
 public:
  virtual ~Schedule() = default;
  // step is 0-based, 0 <= step < total_steps. The factor is in [0, 1].
  virtual double Factor(int64_t step, int64_t total_steps) const = 0;
};

}  // namespace tw
