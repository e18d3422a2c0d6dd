#include "core/engine/buckets.h"

#include <ATen/ops/zeros.h>

namespace tw {

std::vector<std::vector<int>> AssignBuckets(std::span<const int64_t> bytes, int64_t cap_bytes) {
  std::vector<std::vector<int>> buckets;
  int64_t filled = 0;
  for (size_t i = bytes.size(); i-- > 0;) {
    const int64_t padded = PaddedBytes(bytes[i]);
    if (buckets.empty() || (filled > 0 && filled + padded > cap_bytes)) {
      buckets.emplace_back();
      filled = 0;
    }
    buckets.back().push_back(static_cast<int>(i));
    filled += padded;
  }
  return buckets;
}

std::vector<at::Tensor> GradientsInARow(std::span<const at::Tensor> leaves, at::Tensor* storage) {
  int64_t bytes = 0;
  for (const at::Tensor& leaf : leaves) bytes += PaddedBytes(static_cast<int64_t>(leaf.nbytes()));
  *storage = at::zeros({bytes}, leaves[0].options().dtype(at::kByte));
  std::vector<at::Tensor> grads;
  int64_t at = 0;
  for (const at::Tensor& leaf : leaves) {
    const int64_t size = static_cast<int64_t>(leaf.nbytes());
    grads.push_back(storage->narrow(0, at, size).view(leaf.scalar_type()).view(leaf.sizes()));
    at += PaddedBytes(size);
  }
  return grads;
}

}  // namespace tw
