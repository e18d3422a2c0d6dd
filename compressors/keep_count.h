#pragma once
// How many of a tensor's elements a sparsifier keeps.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace tw {

// clamp(round(ratio * numel), 1, numel); 0 for an empty tensor.
inline int64_t KeepCount(double ratio, int64_t numel) {
  if (numel == 0) return 0;
  return std::clamp<int64_t>(std::llround(ratio * static_cast<double>(numel)), 1, numel);
}

}  // namespace tw
