#pragma once
// Knob: the one key of a compressor that trades bytes for error (rank, ratio, bits). A compressor
// states it in its traits; planners choose values of it and know no compressor by name.

#include <string>
#include <vector>

#include "core/base/config_value.h"

namespace tw {

struct Knob {
  std::string key;   // of the compressor's config; empty: it has no knob
  double value = 0;  // of this instance
  double low = 0;    // smallest and largest value the key takes
  double high = 0;
  bool whole = false;         // integers only
  std::vector<double> steps;  // the only values that differ in bytes, ascending; empty: all do

  bool exists() const { return !key.empty(); }
  // Values between about `from` and `to` times this instance's, ascending and distinct, at most
  // `most` of them, this instance's own among them. Integers reach down to floor(from * value) and
  // up to ceil(to * value); real values, and integers that are too many, are spaced geometrically.
  // REQUIRES: exists(), value > 0, 0 < from <= 1 <= to, most >= 1.
  std::vector<double> Options(double from, double to, size_t most) const;
  // As the config takes it.
  FieldValue Setting(double v) const;
  // "rank 4".
  std::string Label(double v) const;
};

}  // namespace tw
