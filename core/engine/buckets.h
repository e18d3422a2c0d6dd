#pragma once
// Which parameters travel together: in reverse order of registration, the order in which backward
// finishes them, as many as fit under the cap (one that is larger than it alone).

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace tw {

// Each gradient starts on an address of this alignment.
inline constexpr int64_t kGradientAlign = 64;
inline int64_t PaddedBytes(int64_t bytes) {
  return (bytes + kGradientAlign - 1) / kGradientAlign * kGradientAlign;
}

// bytes[i]: of parameter i. Parameters by bucket.
std::vector<std::vector<int>> AssignBuckets(std::span<const int64_t> bytes, int64_t cap_bytes);

// Zeros for a gradient of each leaf, shaped and placed as it, one behind the other in *storage.
std::vector<at::Tensor> GradientsInARow(std::span<const at::Tensor> leaves, at::Tensor* storage);

}  // namespace tw
