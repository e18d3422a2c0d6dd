#include "core/engine/tensor_views.h"

#include "core/base/status.h"

namespace tw {
namespace {

DType ToDType(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return DType::kF32;
    case at::kDouble:
      return DType::kF64;
    case at::kHalf:
      return DType::kF16;
    case at::kBFloat16:
      return DType::kBF16;
    default:
      TW_CHECK(false && "parameters are fp32, fp64, fp16 or bf16");
      return DType::kF32;
  }
}

}  // namespace

TensorView ViewOf(const at::Tensor& tensor) {
  TW_CHECK(tensor.is_contiguous());
  return {tensor.data_ptr(), ToDType(tensor.scalar_type()), tensor.numel()};
}

std::vector<TensorSpec> SpecsOf(const NamedTensors& parameters, const Sketches& sketches) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : parameters) {
    const at::Tensor& leaf = GradientLeaf(sketches, name, tensor);
    specs.push_back({static_cast<uint32_t>(specs.size()), name, leaf.sizes().vec(),
                     ToDType(leaf.scalar_type())});
  }
  return specs;
}

}  // namespace tw
