#pragma once
// Config struct beside its user: one field list gives parsing, range checks, help text, docs and
// the hash ranks compare.
//
//   struct TopKConfig {
//     double ratio = 0.01;
//     static FieldList<TopKConfig> Fields() {
//       return FieldList<TopKConfig>().Real("ratio", &TopKConfig::ratio, {0, 1, kOpenLow},
//       "fraction of entries sent");
//     }
//   };
//   TW_ASSIGN_OR_RETURN(TopKConfig c, ParseFields<TopKConfig>(section));

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/base/config_value.h"

namespace tw {

// One key, for `list`, docs/guide.md and unknown-key messages.
struct FieldInfo {
  std::string key;
  FieldValue default_value;
  std::string range;  // ">= 1", "(0, 1]", "none | spectral": empty when any value will do
  std::string help;
};

enum RangeOpen { kClosed = 0, kOpenLow = 1, kOpenHigh = 2, kOpenBoth = 3 };
struct RealRange {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  RangeOpen open = kClosed;
};
struct IntRange {
  int64_t low = std::numeric_limits<int64_t>::min();
  int64_t high = std::numeric_limits<int64_t>::max();
};

std::string RangeText(const RealRange& range);
std::string RangeText(const IntRange& range);
// Converts and checks one value; the error names section, key, place, what was found and what is
// allowed.
StatusOr<double> ReadReal(const ConfigSection&, const std::string& key, const ConfigValue&,
                          RealRange);
StatusOr<int64_t> ReadInt(const ConfigSection&, const std::string& key, const ConfigValue&,
                          IntRange);
StatusOr<bool> ReadBool(const ConfigSection&, const std::string& key, const ConfigValue&);
StatusOr<std::string> ReadText(const ConfigSection&, const std::string& key, const ConfigValue&,
                               const std::vector<std::string>& choices);
StatusOr<std::vector<double>> ReadReals(const ConfigSection&, const std::string& key,
                                        const ConfigValue&, RealRange, int count);
StatusOr<std::vector<std::string>> ReadTexts(const ConfigSection&, const std::string& key,
                                             const ConfigValue&,
                                             const std::vector<std::string>& choices);

template <class C>
class FieldList {
 public:
  struct Field {
    FieldInfo info;
    std::function<Status(const ConfigSection&, const ConfigValue&, C&)> set;
    std::function<FieldValue(const C&)> get;
  };

  FieldList& Real(std::string key, double C::*m, RealRange range, std::string help) {
    return Add(
        key, RangeText(range), help,
        [=](const ConfigSection& s, const ConfigValue& v, C& c) -> Status {
          TW_ASSIGN_OR_RETURN(c.*m, ReadReal(s, key, v, range));
          return OkStatus();
        },
        [=](const C& c) { return FieldValue(c.*m); });
  }
  FieldList& Int(std::string key, int64_t C::*m, IntRange range, std::string help) {
    return Add(
        key, RangeText(range), help,
        [=](const ConfigSection& s, const ConfigValue& v, C& c) -> Status {
          TW_ASSIGN_OR_RETURN(c.*m, ReadInt(s, key, v, range));
          return OkStatus();
        },
        [=](const C& c) { return FieldValue(c.*m); });
  }
  FieldList& Bool(std::string key, bool C::*m, std::string help) {
    return Add(
        key, "true | false", help,
        [=](const ConfigSection& s, const ConfigValue& v, C& c) -> Status {
          TW_ASSIGN_OR_RETURN(c.*m, ReadBool(s, key, v));
          return OkStatus();
        },
        [=](const C& c) { return FieldValue(c.*m); });
  }
  // Any text when `choices` is empty.
  FieldList& Text(std::string key, std::string C::*m, std::vector<std::string> choices,
                  std::string help) {
    std::string range;
    for (const auto& c : choices) range += (range.empty() ? "" : " | ") + c;
    return Add(
        key, range, help,
        [=](const ConfigSection& s, const ConfigValue& v, C& c) -> Status {
          TW_ASSIGN_OR_RETURN(c.*m, ReadText(s, key, v, choices));
          return OkStatus();
        },
        [=](const C& c) { return FieldValue(c.*m); });
  }
  // A list of `count` reals.
  FieldList& Reals(std::string key, std::vector<double> C::*m, RealRange range, int count,
                   std::string help) {
    return Add(
        key, std::to_string(count) + " numbers in " + RangeText(range), help,
        [=](const ConfigSection& s, const ConfigValue& v, C& c) -> Status {
          TW_ASSIGN_OR_RETURN(c.*m, ReadReals(s, key, v, range, count));
          return OkStatus();
        },
        [=](const C& c) { return FieldValue(c.*m); });
  }
  FieldList& Texts(std::string key, std::vector<std::string> C::*m,
                   std::vector<std::string> choices, std::string help) {
    std::string range;
    for (const auto& c : choices) range += (range.empty() ? "list of: " : ", ") + c;
    return Add(
        key, range, help,
        [=](const ConfigSection& s, const ConfigValue& v, C& c) -> Status {
          TW_ASSIGN_OR_RETURN(c.*m, ReadTexts(s, key, v, choices));
          return OkStatus();
        },
        [=](const C& c) { return FieldValue(c.*m); });
  }

  const std::vector<Field>& fields() const& { return fields_; }
  // By value from a temporary, so that a loop over C::Fields().fields() does not dangle.
  std::vector<Field> fields() && { return std::move(fields_); }
  std::vector<FieldInfo> infos() const {
    std::vector<FieldInfo> out;
    for (const auto& f : fields_) out.push_back(f.info);
    return out;
  }

 private:
  FieldList& Add(const std::string& key, const std::string& range, const std::string& help,
                 std::function<Status(const ConfigSection&, const ConfigValue&, C&)> set,
                 std::function<FieldValue(const C&)> get) {
    fields_.push_back({{key, get(C{}), range, help}, std::move(set), std::move(get)});
    return *this;
  }
  std::vector<Field> fields_;
};

// Reads the keys C knows and marks them used; keys it does not know are left to CheckKeys.
template <class C>
StatusOr<C> ParseFields(const ConfigSection& section) {
  C config;
  const FieldList<C> list = C::Fields();
  for (const auto& field : list.fields()) {
    auto it = section.values.find(field.info.key);
    if (it == section.values.end()) continue;
    it->second.used = true;
    TW_RETURN_IF_ERROR(field.set(section, it->second, config));
  }
  return config;
}

// The effective values of a struct, in field order: what config.toml in the run folder and the
// config hash are made of.
template <class C>
std::vector<std::pair<std::string, FieldValue>> DumpFields(const C& config) {
  std::vector<std::pair<std::string, FieldValue>> out;
  const FieldList<C> list = C::Fields();
  for (const auto& field : list.fields()) out.emplace_back(field.info.key, field.get(config));
  return out;
}

// Refuses keys of `section` that are in neither list, with place, nearest word and the known keys.
// Keys known only to other variants of the kind (`elsewhere`) are appended to *idle as
// "compressor.ratio does nothing here".
Status CheckKeys(const ConfigSection& section, const std::vector<std::string>& known,
                 const std::vector<std::string>& elsewhere, std::vector<std::string>* idle);

}  // namespace tw
