#include "core/data/labeled_data.h"

#include <algorithm>

namespace tw {

void SparseRows::Densify(int64_t index, std::span<float> out) const {
  std::fill(out.begin(), out.end(), 0.0f);
  const auto row = static_cast<size_t>(index);
  for (auto at = static_cast<size_t>(row_begin[row]); at < static_cast<size_t>(row_begin[row + 1]);
       ++at) {
    out[static_cast<size_t>(columns[at])] = values[at];
  }
}

}  // namespace tw
