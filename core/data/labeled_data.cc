#include "core/data/labeled_data.h"

#include <algorithm>

namespace tw {

void ImageData::Append(const ImageData& other) {
  pixels.insert(pixels.end(), other.pixels.begin(), other.pixels.end());
  labels.insert(labels.end(), other.labels.begin(), other.labels.end());
  classes = std::max(classes, other.classes);
}

bool SparseRows::Append(const SparseRows& other) {
  std::vector<int32_t> added;
  for (int32_t label : other.labels) {
    const int64_t value = other.label_values[static_cast<size_t>(label)];
    const auto it = std::lower_bound(label_values.begin(), label_values.end(), value);
    if (it == label_values.end() || *it != value) return false;
    added.push_back(static_cast<int32_t>(it - label_values.begin()));
  }
  const int64_t held = row_begin.back();
  for (size_t i = 1; i < other.row_begin.size(); ++i)
    row_begin.push_back(held + other.row_begin[i]);
  columns.insert(columns.end(), other.columns.begin(), other.columns.end());
  values.insert(values.end(), other.values.begin(), other.values.end());
  labels.insert(labels.end(), added.begin(), added.end());
  features = std::max(features, other.features);
  return true;
}

void SparseRows::Densify(int64_t index, std::span<float> out) const {
  std::fill(out.begin(), out.end(), 0.0f);
  const auto row = static_cast<size_t>(index);
  for (auto at = static_cast<size_t>(row_begin[row]); at < static_cast<size_t>(row_begin[row + 1]);
       ++at) {
    out[static_cast<size_t>(columns[at])] = static_cast<float>(values[at]);
  }
}

}  // namespace tw
