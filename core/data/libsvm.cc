#include "core/data/libsvm.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>

#include "core/data/file.h"

namespace tw {
namespace {

constexpr int64_t kMaxFeatures = 1 << 26;  // a dense row of floats stays under 256 MiB
constexpr int64_t kMaxClasses = 4096;

// What a user sees of the offending word: short, and no control characters.
std::string Quote(std::string_view word) {
  std::string out = "\"";
  for (char c : word.substr(0, 24)) out += (c >= 32 && c < 127) ? c : '?';
  return out + (word.size() > 24 ? "...\"" : "\"");
}

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

// Cuts the next blank-separated word off the front; empty at the end of the line.
std::string_view NextWord(std::string_view* line) {
  size_t from = 0;
  while (from < line->size() && IsBlank((*line)[from])) ++from;
  size_t to = from;
  while (to < line->size() && !IsBlank((*line)[to])) ++to;
  const std::string_view word = line->substr(from, to - from);
  line->remove_prefix(to);
  return word;
}

template <class T>
bool ParseWhole(std::string_view word, T* value) {
  if (!word.empty() && word[0] == '+') word.remove_prefix(1);  // from_chars knows no plus sign
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), *value);
  return error == std::errc() && end == word.data() + word.size();
}

// A file of one class is still about two: -1 goes with +1, 0 and 2 with 1, 1 with 0, anything else
// with the next number.
void AddTheOtherClass(std::map<int64_t, int32_t>* classes) {
  const int64_t label = classes->begin()->first;
  (*classes)[label == -1 || label == 2 ? 1 : label == 1 ? 0 : label + 1] = 0;
}

}  // namespace

StatusOr<SparseRows> ParseLibsvm(std::string_view text, const std::string& name,
                                 int64_t min_features) {
  SparseRows rows;
  rows.features = min_features;
  std::vector<int64_t> raw_labels;
  std::map<int64_t, int32_t> classes;
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    line = line.substr(0, line.find('#'));
    const auto fail = [&](const std::string& what) {
      return DataError(name + ":" + std::to_string(number) + ": " + what);
    };
    std::string_view word = NextWord(&line);
    if (word.empty()) continue;
    double label = 0;
    if (!ParseWhole(word, &label) || label != std::floor(label) || std::abs(label) > 1e9) {
      return fail("label " + Quote(word) + ", a whole number is needed first on the line");
    }
    raw_labels.push_back(static_cast<int64_t>(label));
    classes[raw_labels.back()] = 0;
    if (static_cast<int64_t>(classes.size()) > kMaxClasses) {
      return fail("more than " + std::to_string(kMaxClasses) +
                  " different labels: is this a regression file?");
    }
    int64_t last = 0;
    while (!(word = NextWord(&line)).empty()) {
      const size_t colon = word.find(':');
      int64_t index = 0;
      double value = 0;
      if (colon == std::string_view::npos || !ParseWhole(word.substr(0, colon), &index) ||
          !ParseWhole(word.substr(colon + 1), &value) || !std::isfinite(value) ||
          std::abs(value) > std::numeric_limits<float>::max()) {
        return fail(Quote(word) + " is not index:value");
      }
      if (index < 1 || index > kMaxFeatures) {
        return fail("index " + std::to_string(index) + ", allowed 1 to " +
                    std::to_string(kMaxFeatures));
      }
      if (index <= last) {
        return fail("index " + std::to_string(index) + " after " + std::to_string(last) +
                    ", indices must rise");
      }
      last = index;
      rows.columns.push_back(static_cast<int32_t>(index - 1));
      rows.values.push_back(value);
    }
    rows.features = std::max(rows.features, last);
    rows.row_begin.push_back(static_cast<int64_t>(rows.columns.size()));
  }
  if (raw_labels.empty()) return DataError(name + ": no rows, only empty lines");
  if (rows.features == 0) return DataError(name + ": no row has a feature");
  if (classes.size() == 1) AddTheOtherClass(&classes);
  for (auto& [label, index] : classes) {
    index = static_cast<int32_t>(rows.label_values.size());
    rows.label_values.push_back(label);
  }
  rows.classes = static_cast<int64_t>(classes.size());
  for (int64_t label : raw_labels) rows.labels.push_back(classes[label]);
  return rows;
}

StatusOr<SparseRows> ReadLibsvm(const std::string& path, int64_t min_features) {
  TW_ASSIGN_OR_RETURN(const std::string text, ReadDataFile(path));
  return ParseLibsvm(text, path, min_features);
}

}  // namespace tw
