#include "core/data/random_rows.h"

#include <algorithm>
#include <cmath>

#include "core/base/normal.h"
#include "core/base/status.h"

namespace tw {
namespace {

RngStream StreamOf(uint64_t seed, uint64_t part, int64_t index) {
  return RngStream::Of(seed, RngPurpose::kSynthetic, part, static_cast<uint32_t>(index),
                       kSharedRank);
}

std::vector<double> Normals(const RngStream& rng, size_t count) {
  std::vector<double> out(count);
  AddNormal(rng, 1, out);
  return out;
}

SparseRows NoRows(int64_t features) {
  SparseRows rows;
  rows.features = features;
  rows.classes = 2;
  rows.label_values = {-1, 1};
  return rows;
}

// The row with these values, which begins where the last one ends. score = <x, w>.
void EndRow(double score, double noise, SparseRows* rows) {
  rows->labels.push_back(score + noise > 0 ? 1 : 0);
  rows->row_begin.push_back(static_cast<int64_t>(rows->columns.size()));
}

}  // namespace

SparseRows GaussianRows(uint64_t seed, int64_t count, int64_t features, double noise) {
  SparseRows rows = NoRows(features);
  const std::vector<double> w = Normals(StreamOf(seed, 30, 0), static_cast<size_t>(features));
  double squares = 0;
  for (const double v : w) squares += v * v;
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<double> x = Normals(StreamOf(seed, 31, i), w.size() + 1);  // noise last
    double score = 0;
    for (size_t f = 0; f < w.size(); ++f) {
      rows.columns.push_back(static_cast<int32_t>(f));
      rows.values.push_back(static_cast<float>(x[f]));
      score += w[f] * x[f];
    }
    EndRow(score, noise * std::sqrt(squares) * x.back(), &rows);
  }
  return rows;
}

SparseRows RandomSparseRows(uint64_t seed, int64_t count, int64_t features, int64_t nonzeros) {
  TW_CHECK(nonzeros <= features);
  SparseRows rows = NoRows(features);
  const std::vector<double> w = Normals(StreamOf(seed, 32, 0), static_cast<size_t>(features));
  std::vector<int32_t> columns;
  for (int64_t i = 0; i < count; ++i) {
    const RngStream rng = StreamOf(seed, 33, i);
    columns.clear();
    for (int64_t k = 0; k < nonzeros; ++k) {
      columns.push_back(static_cast<int32_t>(
          rng.Below(static_cast<uint64_t>(k), static_cast<uint64_t>(features))));
    }
    std::sort(columns.begin(), columns.end());
    columns.erase(std::unique(columns.begin(), columns.end()), columns.end());
    const std::vector<double> x = Normals(StreamOf(seed, 34, i), columns.size() + 1);
    double score = 0, squares = 0;
    for (size_t k = 0; k < columns.size(); ++k) {
      const double weight = w[static_cast<size_t>(columns[k])];
      rows.columns.push_back(columns[k]);
      rows.values.push_back(static_cast<float>(x[k]));
      score += weight * x[k];
      squares += weight * weight;
    }
    EndRow(score, 0.5 * std::sqrt(squares) * x.back(), &rows);
  }
  return rows;
}

}  // namespace tw
