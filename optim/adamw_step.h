#pragma once
// AdamW's update of one parameter with both moments by element: what adamw does everywhere, and
// adam_mini where a role says so.

#include <vector>

#include "core/api/optimizer.h"
#include "core/kernels/optimizer.h"

namespace tw {

struct AdamWConfig {
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0.01;
  static FieldList<AdamWConfig> Fields();
};

template <class T>
kernels::AdamWCoefficients<T> AdamWCoefficientsOf(const AdamWConfig& config,
                                                  const UpdateContext& context);

void StepAdamW(const ParameterView& parameter, const AdamWConfig& config,
               const UpdateContext& context);
// See Optimizer::StepNarrow, CheckOnDevice.
bool StepAdamWNarrow(const TensorSpec& spec, const kernels::NarrowParameter& parameter,
                     const AdamWConfig& config, const UpdateContext& context);
Status CheckAdamWOnDevice(const TensorSpec& spec, const StateTreatment& treatment);
int64_t AdamWStateBytes(const TensorSpec& spec, const StateTreatment& treatment);

}  // namespace tw
