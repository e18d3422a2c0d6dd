#include "core/engine/update.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <algorithm>
#include <functional>
#include <iterator>

#include "core/engine/tensor_views.h"

namespace tw {

Status Update(const Optimizer& optimizer, std::span<const ParameterView> parameters,
              const UpdateContext& context) {
  const auto sketched = [](const ParameterView& p) { return p.expansion != nullptr; };
  const auto first = std::find_if(parameters.begin(), parameters.end(), sketched);
  if (first == parameters.end()) return optimizer.Step(parameters, context);

  const WeightDecay decay = optimizer.weight_decay();
  TW_CHECK(decay.decoupled || decay.rate == 0);
  std::vector<ParameterView> whole;
  std::copy_if(parameters.begin(), parameters.end(), std::back_inserter(whole),
               std::not_fn(sketched));
  TW_RETURN_IF_ERROR(optimizer.Step(whole, context));
  for (const ParameterView& p : parameters) {
    if (!sketched(p)) continue;
    TW_CHECK(p.value.dtype == DType::kF32);
    const at::Tensor update = at::zeros({p.grad.numel}, at::kFloat);
    const ParameterView zeros[] = {{p.spec, ViewOf(update), p.grad}};
    TW_RETURN_IF_ERROR(optimizer.Step(zeros, context));
    p.expansion->Apply(p.value, 1 - context.lr * decay.rate, ViewOf(update));
  }
  return OkStatus();
}

}  // namespace tw
