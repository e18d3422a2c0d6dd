#include "core/base/config_fields.h"

#include <algorithm>
#include <cmath>

namespace tw {
namespace {

std::string Name(const ConfigSection& section, const std::string& key) {
  return section.name.empty() ? key : section.name + "." + key;
}

Status Wrong(const ConfigSection& section, const std::string& key, const ConfigValue& value,
             const std::string& allowed) {
  return ConfigError(value.where + ": " + Name(section, key) + " = " + ToToml(value.value) +
                     " is not allowed; it must be " + allowed);
}

std::string Number(double v) {
  const std::string text = ToToml(FieldValue(v));
  return text.size() > 2 && text.substr(text.size() - 2) == ".0" ? text.substr(0, text.size() - 2)
                                                                 : text;
}

bool Inside(double v, const RealRange& r) {
  if (!std::isfinite(v)) return false;
  const bool open_low = r.open == kOpenLow || r.open == kOpenBoth;
  const bool open_high = r.open == kOpenHigh || r.open == kOpenBoth;
  return (open_low ? v > r.low : v >= r.low) && (open_high ? v < r.high : v <= r.high);
}

bool AsReal(const FieldValue& value, double* out) {
  if (const auto* d = std::get_if<double>(&value)) {
    *out = *d;
    return true;
  }
  if (const auto* i = std::get_if<int64_t>(&value)) {
    *out = static_cast<double>(*i);
    return true;
  }
  return false;
}

std::string Choices(const std::vector<std::string>& choices) {
  std::string out;
  for (const auto& c : choices) out += (out.empty() ? "" : ", ") + c;
  return "one of " + out;
}

}  // namespace

std::string RangeText(const RealRange& r) {
  const bool low = std::isfinite(r.low), high = std::isfinite(r.high);
  const bool open_low = r.open == kOpenLow || r.open == kOpenBoth;
  const bool open_high = r.open == kOpenHigh || r.open == kOpenBoth;
  if (low && high) {
    return std::string(open_low ? "(" : "[") + Number(r.low) + ", " + Number(r.high) +
           (open_high ? ")" : "]");
  }
  if (low) return (open_low ? "> " : ">= ") + Number(r.low);
  if (high) return (open_high ? "< " : "<= ") + Number(r.high);
  return "any number";
}

std::string RangeText(const IntRange& r) {
  const bool low = r.low != std::numeric_limits<int64_t>::min();
  const bool high = r.high != std::numeric_limits<int64_t>::max();
  if (low && high) return std::to_string(r.low) + ".." + std::to_string(r.high);
  if (low) return ">= " + std::to_string(r.low);
  if (high) return "<= " + std::to_string(r.high);
  return "any integer";
}

StatusOr<double> ReadReal(const ConfigSection& s, const std::string& key, const ConfigValue& v,
                          RealRange range) {
  double out = 0;
  if (!AsReal(v.value, &out)) return Wrong(s, key, v, "a number, " + RangeText(range));
  if (!Inside(out, range)) return Wrong(s, key, v, RangeText(range));
  return out;
}

StatusOr<int64_t> ReadInt(const ConfigSection& s, const std::string& key, const ConfigValue& v,
                          IntRange range) {
  int64_t out = 0;
  if (const auto* i = std::get_if<int64_t>(&v.value)) {
    out = *i;
  } else if (const auto* d = std::get_if<double>(&v.value);
             d && *d == std::floor(*d) && std::abs(*d) < 9e15) {
    out = static_cast<int64_t>(*d);  // 1e6 is a natural way to write a count
  } else {
    return Wrong(s, key, v, "an integer, " + RangeText(range));
  }
  if (out < range.low || out > range.high) return Wrong(s, key, v, RangeText(range));
  return out;
}

StatusOr<bool> ReadBool(const ConfigSection& s, const std::string& key, const ConfigValue& v) {
  if (const auto* b = std::get_if<bool>(&v.value)) return *b;
  return Wrong(s, key, v, "true or false");
}

StatusOr<std::string> ReadText(const ConfigSection& s, const std::string& key, const ConfigValue& v,
                               const std::vector<std::string>& choices) {
  const auto* text = std::get_if<std::string>(&v.value);
  if (!text) {
    // data.path=2024 on the command line parses as a number; a text field takes it as written.
    if (choices.empty() && !std::holds_alternative<std::vector<double>>(v.value) &&
        !std::holds_alternative<std::vector<std::string>>(v.value)) {
      return ToToml(v.value);
    }
    return Wrong(s, key, v, choices.empty() ? "a text" : Choices(choices));
  }
  if (!choices.empty() && std::find(choices.begin(), choices.end(), *text) == choices.end()) {
    const std::string nearest = NearestWord(*text, choices);
    return Wrong(s, key, v,
                 Choices(choices) + (nearest.empty() ? "" : "; did you mean " + nearest + "?"));
  }
  return *text;
}

StatusOr<std::vector<double>> ReadReals(const ConfigSection& s, const std::string& key,
                                        const ConfigValue& v, RealRange range, int count) {
  const std::string allowed =
      "a list of " + std::to_string(count) + " numbers, " + RangeText(range);
  const auto* list = std::get_if<std::vector<double>>(&v.value);
  if (!list || static_cast<int>(list->size()) != count) return Wrong(s, key, v, allowed);
  for (double x : *list) {
    if (!Inside(x, range)) return Wrong(s, key, v, allowed);
  }
  return *list;
}

StatusOr<std::vector<std::string>> ReadTexts(const ConfigSection& s, const std::string& key,
                                             const ConfigValue& v,
                                             const std::vector<std::string>& choices) {
  if (const auto* none = std::get_if<std::vector<double>>(&v.value); none && none->empty()) {
    return std::vector<std::string>{};
  }
  std::vector<std::string> list;
  if (const auto* texts = std::get_if<std::vector<std::string>>(&v.value)) {
    list = *texts;
  } else if (const auto* one = std::get_if<std::string>(&v.value)) {
    list = {*one};
  } else {
    return Wrong(s, key, v, "a list of texts");
  }
  for (const auto& text : list) {
    if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
      const std::string nearest = NearestWord(text, choices);
      return Wrong(s, key, v,
                   "a list of: " + Choices(choices) +
                       (nearest.empty() ? "" : "; did you mean " + nearest + "?"));
    }
  }
  return list;
}

Status CheckKeys(const ConfigSection& section, const std::vector<std::string>& known,
                 const std::vector<std::string>& elsewhere, std::vector<std::string>* idle) {
  for (const auto& [key, value] : section.values) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    if (std::find(elsewhere.begin(), elsewhere.end(), key) != elsewhere.end()) {
      idle->push_back(Name(section, key) + " = " + ToToml(value.value) + " does nothing with " +
                      section.name + ".name = \"" + section.GetString("name", "") + "\" (" +
                      value.where + ")");
      continue;
    }
    std::vector<std::string> all = known;
    for (const auto& k : elsewhere) {
      if (std::find(all.begin(), all.end(), k) == all.end()) all.push_back(k);
    }
    return ConfigError(value.where + ": there is no key " + Name(section, key) +
                       KnownWords(key, all));
  }
  return OkStatus();
}

}  // namespace tw
