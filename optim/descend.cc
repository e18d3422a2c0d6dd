#include "optim/descend.h"

#include "optim/elementwise.h"

namespace tw {
namespace {

template <class T>
void UpdateOne(T& p, T g, T* m, const kernels::SgdmCoefficients<T>& c) {
  if (m) {
    kernels::SgdmElement(p, g, *m, c);
  } else {
    kernels::SgdElement(p, g, c);
  }
}

kernels::SgdmCoefficients<float> Narrow(const kernels::SgdmCoefficients<double>& c) {
  return {.grad_scale = static_cast<float>(c.grad_scale),
          .weight_decay = static_cast<float>(c.weight_decay),
          .momentum = static_cast<float>(c.momentum),
          .lr = static_cast<float>(c.lr),
          .nesterov = c.nesterov};
}

}  // namespace

void Descend(const ParameterView& parameter, TensorView m,
             const kernels::SgdmCoefficients<double>& coefficients) {
  CheckParameter(parameter);
  const auto narrow = Narrow(coefficients);
  if (parameter.value.dtype == DType::kF32) {
    if (m.data) {
      kernels::SgdmStep(parameter.value.f32(), parameter.grad.f32(), m.f32(), narrow);
    } else {
      kernels::SgdStep(parameter.value.f32(), parameter.grad.f32(), narrow);
    }
  } else if (parameter.value.dtype == DType::kF64) {
    auto *p = Elements<double>(parameter.value), *g = Elements<double>(parameter.grad);
    for (int64_t i = 0; i < parameter.value.numel; ++i) {
      UpdateOne(p[i], g[i], m.data ? Elements<double>(m) + i : nullptr, coefficients);
    }
  } else {
    ForHalfElements(parameter, [&](float& p, float g, int64_t i) {
      UpdateOne(p, g, m.data ? Elements<float>(m) + i : nullptr, narrow);
    });
  }
}

}  // namespace tw
