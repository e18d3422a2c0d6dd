#pragma once
// Where each rank's part of a buffer lies, for the communicators.

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/status.h"

namespace tw {

// Writes to `begins` the n + 1 offsets of n parts that lie one behind the other, and returns it.
// REQUIRES: no size is negative (checked).
inline const std::vector<int64_t>& BeginsOf(std::span<const int64_t> sizes,
                                            std::vector<int64_t>* begins) {
  begins->assign(1, 0);
  for (const int64_t size : sizes) {
    TW_CHECK_GE(size, 0);
    begins->push_back(begins->back() + size);
  }
  return *begins;
}

// That of `rank`.
template <class Bytes>
Bytes Part(Bytes bytes, const std::vector<int64_t>& begins, int rank) {
  const size_t r = static_cast<size_t>(rank);
  return bytes.subspan(static_cast<size_t>(begins[r]),
                       static_cast<size_t>(begins[r + 1] - begins[r]));
}

}  // namespace tw
