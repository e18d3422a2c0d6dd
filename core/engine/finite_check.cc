#include "core/engine/finite_check.h"

#include <algorithm>

#include "core/api/convert.h"
#include "core/kernels/device_kernels.h"

namespace tw {

bool FiniteCheck::Look(std::span<const TensorView> vectors) {
  auto* const device = kernels::OnDevice();
  if (!device) {
    finite_ = finite_ && std::all_of(vectors.begin(), vectors.end(), AllFinite);
    return finite_;
  }
  Together together;
  for (const TensorView& v : vectors) {
    together.Next();
    device->CheckFinite(v);
  }
  return finite_;
}

StatusOr<bool> FiniteCheck::Finite() {
  auto* const device = kernels::OnDevice();
  if (!device) return finite_;
  finite_ = device->TakeAllFinite() && finite_;
  TW_RETURN_IF_ERROR(device->Wait());
  return finite_;
}

}  // namespace tw
