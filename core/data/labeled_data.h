#pragma once
// Samples with a class each: dense bytes (images) or sparse rows. Immutable once filled; thread
// safe.

#include <cstdint>
#include <span>
#include <vector>

namespace tw {

// Images of one size, a byte a pixel.
struct ImageData {
  int64_t channels = 1, height = 0, width = 0;
  int64_t classes = 0;
  std::vector<uint8_t> pixels;  // [size, channels, height, width]
  std::vector<int32_t> labels;  // [size], 0 .. classes - 1

  int64_t size() const { return static_cast<int64_t>(labels.size()); }
  int64_t numel() const { return channels * height * width; }
  // Adds the images of `other`. REQUIRES: the same size of images.
  void Append(const ImageData& other);
};

// Rows of (feature, value) pairs in compressed form; features not named are 0.
struct SparseRows {
  int64_t features = 0;
  int64_t classes = 0;
  std::vector<int64_t> row_begin{0};  // [size + 1]
  std::vector<int32_t> columns;       // from 0, rising within a row
  std::vector<double> values;         // as written; a model in fp32 rounds them
  std::vector<int32_t> labels;        // [size], 0 .. classes - 1
  std::vector<int64_t> label_values;  // what the file calls class 0, 1, ...; rising

  int64_t size() const { return static_cast<int64_t>(labels.size()); }
  // Adds the rows of `other`, whose classes are found by label_values. False, and nothing is added,
  // when `other` has a label that is not among ours.
  bool Append(const SparseRows& other);
  // Row `index` as `features` numbers.
  void Densify(int64_t index, std::span<float> out) const;
};

}  // namespace tw
