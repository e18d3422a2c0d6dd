#pragma once
// What a config file holds once read: sections of keys, each value with the place it came from.

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "core/base/status.h"

namespace tw {

using FieldValue =
    std::variant<bool, int64_t, double, std::string, std::vector<double>, std::vector<std::string>>;

// As TOML writes it: true, 3, 0.01, "topk", [0.9, 0.999].
std::string ToToml(const FieldValue& value);

struct ConfigValue {
  FieldValue value;
  std::string where;          // "config.toml:12" or "command line"
  mutable bool used = false;  // read by somebody: what stays false did nothing
};

struct ConfigSection {
  std::string name;  // "compressor", "compressor.rule[0]", "" for the top
  std::string where;
  std::map<std::string, ConfigValue> values;

  bool has(const std::string& key) const { return values.count(key) != 0; }
  // The string under `key`, or `fallback` when absent or not a string.
  std::string GetString(const std::string& key, const std::string& fallback) const;
  void Set(const std::string& key, FieldValue value, const std::string& where = "command line");
};

class Config {
 public:
  // Reads TOML from a file or a text; `name` is used in messages. Fault kConfig for syntax, kData
  // when unreadable.
  static StatusOr<Config> Load(const std::string& path);
  static StatusOr<Config> Parse(const std::string& text, const std::string& name);

  // "section.key=value", "key=value" (top level) or "compressor.rule.0.rank=2". The value is TOML,
  // or a bare word.
  Status Override(const std::string& assignment);

  // An empty section when absent.
  const ConfigSection& section(const std::string& name) const;
  ConfigSection& mutable_section(const std::string& name);
  // [[compressor.rule]] -> "compressor.rule", in file order.
  const std::vector<ConfigSection>& array(const std::string& name) const;
  const std::map<std::string, ConfigSection>& sections() const { return sections_; }
  const std::map<std::string, std::vector<ConfigSection>>& arrays() const { return arrays_; }

  // Sections must be among `known`, otherwise an error with file, line and the nearest known one.
  Status CheckSections(const std::vector<std::string>& known) const;

 private:
  std::map<std::string, ConfigSection> sections_;
  std::map<std::string, std::vector<ConfigSection>> arrays_;
};

// "did you mean ..."-style helper: the known word with the smallest edit distance; empty when none
// is near.
std::string NearestWord(const std::string& word, const std::vector<std::string>& known);
// `, known: a, b, c; nearest: b`.
std::string KnownWords(const std::string& word, const std::vector<std::string>& known);

}  // namespace tw
