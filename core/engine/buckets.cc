#include "core/engine/buckets.h"

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

}  // namespace tw
