#include "core/api/knob.h"

#include <algorithm>
#include <cmath>

#include "core/base/status.h"

namespace tw {
namespace {

// `count` values from low to high by equal factors.
std::vector<double> Geometric(double low, double high, size_t count) {
  std::vector<double> out;
  for (size_t i = 0; i < count; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(count - 1);
    out.push_back(i == 0 ? low : i + 1 == count ? high : low * std::pow(high / low, share));
  }
  return out;
}

}  // namespace

std::vector<double> Knob::Options(double from, double to, size_t most) const {
  TW_CHECK(exists() && value > 0 && from > 0 && from <= 1 && to >= 1 && most >= 1);
  double first = from * value, last = to * value;
  if (whole) {
    // A product that misses an integer by its rounding does not reach the next one.
    constexpr double kSlack = 1e-9;
    first = std::floor(first + kSlack);
    last = std::ceil(last - kSlack);
  }
  first = std::max(first, low);
  last = std::min(last, high);
  if (most == 1 || !(first < last)) return {value};
  std::vector<double> out;
  if (!steps.empty()) {
    for (const double v : steps) {
      if (v >= first && v <= last) out.push_back(v);
    }
  } else if (whole && last - first + 1 <= static_cast<double>(most)) {
    for (double v = first; v <= last; v += 1) out.push_back(v);
  } else {
    out = Geometric(first, last, most);
    if (whole) {
      for (double& v : out) v = std::round(v);
    }
  }
  // The own value takes the place of its nearest neighbour where it is not on the grid.
  if (out.empty()) return {value};
  *std::min_element(out.begin(), out.end(), [this](double a, double b) {
    return std::abs(std::log(a / value)) < std::abs(std::log(b / value));
  }) = value;
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  while (out.size() > most) {  // thinned out from the far end, `value` stays
    out.erase(out.back() == value ? out.begin() : out.end() - 1);
  }
  return out;
}

FieldValue Knob::Setting(double v) const {
  if (whole) return static_cast<int64_t>(std::llround(v));
  return v;
}

std::string Knob::Label(double v) const {
  char text[32];
  std::snprintf(text, sizeof(text), "%.4g", v);
  return key + " " + text;
}

}  // namespace tw
