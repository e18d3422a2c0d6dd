#include "core/base/config_value.h"

#include <toml++/toml.h>

#include <algorithm>
#include <cstdio>

#include "core/base/file_io.h"

namespace tw {
namespace {

std::string RealText(double v) {
  char text[40];
  for (int digits = 6; digits <= 17; ++digits) {
    std::snprintf(text, sizeof(text), "%.*g", digits, v);
    if (std::strtod(text, nullptr) == v) break;
  }
  std::string out = text;
  if (out.find_first_of(".eni") == std::string::npos) out += ".0";
  return out;
}

std::string Quoted(const std::string& s) {
  std::string out = "\"";
  for (unsigned char c : s) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20 || c == 0x7F) {
      char code[8];
      std::snprintf(code, sizeof(code), "\\u%04X", c);
      out += code;
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + "\"";
}

std::string Place(const std::string& file, const toml::node& node) {
  return file + ":" + std::to_string(node.source().begin.line);
}

StatusOr<FieldValue> ToField(const toml::node& node, const std::string& where,
                             const std::string& key) {
  if (auto v = node.as_boolean()) return FieldValue(v->get());
  if (auto v = node.as_integer()) return FieldValue(v->get());
  if (auto v = node.as_floating_point()) return FieldValue(v->get());
  if (auto v = node.as_string()) return FieldValue(std::string(v->get()));
  if (auto a = node.as_array()) {
    std::vector<double> numbers;
    std::vector<std::string> texts;
    for (const toml::node& item : *a) {
      if (auto f = item.as_floating_point()) {
        numbers.push_back(f->get());
      } else if (auto i = item.as_integer()) {
        numbers.push_back(static_cast<double>(i->get()));
      } else if (auto s = item.as_string()) {
        texts.emplace_back(s->get());
      } else {
        return ConfigError(where + ": " + key + ": a list holds numbers or texts only");
      }
    }
    if (!numbers.empty() && !texts.empty()) {
      return ConfigError(where + ": " + key + ": a list holds either numbers or texts");
    }
    if (!texts.empty()) return FieldValue(std::move(texts));
    return FieldValue(std::move(numbers));
  }
  return ConfigError(where + ": " + key + ": dates and times are not used here");
}

Status ReadTable(const toml::table& table, const std::string& file, const std::string& name,
                 std::map<std::string, ConfigSection>& sections,
                 std::map<std::string, std::vector<ConfigSection>>& arrays) {
  ConfigSection& section = sections[name];
  section.name = name;
  section.where = Place(file, table);
  for (const auto& [k, node] : table) {
    const std::string key(k.str());
    const std::string full = name.empty() ? key : name + "." + key;
    const std::string where = Place(file, node);
    if (auto sub = node.as_table()) {
      TW_RETURN_IF_ERROR(ReadTable(*sub, file, full, sections, arrays));
      continue;
    }
    const auto* list = node.as_array();
    if (list && !list->empty() && list->get(0)->is_table()) {
      for (const toml::node& item : *list) {
        if (!item.is_table())
          return ConfigError(where + ": [[" + full + "]] mixes tables and values");
        std::map<std::string, ConfigSection> inner;
        const std::string inner_name = full + "[" + std::to_string(arrays[full].size()) + "]";
        TW_RETURN_IF_ERROR(ReadTable(*item.as_table(), file, inner_name, inner, arrays));
        if (inner.size() != 1)
          return ConfigError(where + ": [[" + full + "]] holds plain keys only");
        arrays[full].push_back(std::move(inner.begin()->second));
      }
      continue;
    }
    TW_ASSIGN_OR_RETURN(FieldValue value, ToField(node, where, full));
    section.values[key] = {std::move(value), where, false};
  }
  return OkStatus();
}

size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t up = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = up;
    }
  }
  return row[b.size()];
}

}  // namespace

std::string ToToml(const FieldValue& value) {
  struct Visitor {
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(int64_t v) const { return std::to_string(v); }
    std::string operator()(double v) const { return RealText(v); }
    std::string operator()(const std::string& v) const { return Quoted(v); }
    std::string operator()(const std::vector<double>& v) const {
      std::string out = "[";
      for (double x : v) out += (out.size() > 1 ? ", " : "") + RealText(x);
      return out + "]";
    }
    std::string operator()(const std::vector<std::string>& v) const {
      std::string out = "[";
      for (const auto& x : v) out += (out.size() > 1 ? ", " : "") + Quoted(x);
      return out + "]";
    }
  };
  return std::visit(Visitor{}, value);
}

std::string ConfigSection::GetString(const std::string& key, const std::string& fallback) const {
  auto it = values.find(key);
  if (it == values.end()) return fallback;
  const auto* text = std::get_if<std::string>(&it->second.value);
  return text ? *text : ToToml(it->second.value);
}

void ConfigSection::Set(const std::string& key, FieldValue value, const std::string& place) {
  values[key] = {std::move(value), place, false};
}

StatusOr<Config> Config::Parse(const std::string& text, const std::string& name) {
  Config config;
  try {
    const toml::table table = toml::parse(text, std::string(name));
    TW_RETURN_IF_ERROR(ReadTable(table, name, "", config.sections_, config.arrays_));
  } catch (const toml::parse_error& e) {
    return ConfigError(name + ":" + std::to_string(e.source().begin.line) + ": " +
                       std::string(e.description()));
  }
  return config;
}

StatusOr<Config> Config::Load(const std::string& path) {
  const auto text = ReadTextFile(path);
  if (!text.ok()) return ConfigError(std::string(text.status().message()));
  return Parse(*text, path);
}

Status Config::Override(const std::string& assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    return ConfigError("command line: \"" + assignment + "\" is not key=value");
  }
  const std::string path = assignment.substr(0, equals);
  const std::string text = assignment.substr(equals + 1);
  const size_t dot = path.rfind('.');
  const std::string section_name = dot == std::string::npos ? "" : path.substr(0, dot);
  const std::string key = dot == std::string::npos ? path : path.substr(dot + 1);
  if (key.empty()) return ConfigError("command line: \"" + assignment + "\" names no key");

  FieldValue value = text;
  try {
    const toml::table table = toml::parse("v = " + text + "\n");
    if (const toml::node* node = table.get("v"); node && table.size() == 1) {
      TW_ASSIGN_OR_RETURN(value, ToField(*node, "command line", path));
    }
  } catch (const toml::parse_error&) {
    value = text;  // a bare word: compressor.name=topk
  }

  // compressor.rule.0.rank=2
  const size_t index_dot = section_name.rfind('.');
  if (index_dot != std::string::npos) {
    const std::string array_name = section_name.substr(0, index_dot);
    const std::string index = section_name.substr(index_dot + 1);
    auto it = arrays_.find(array_name);
    if (!index.empty() && index.find_first_not_of("0123456789") == std::string::npos) {
      if (it == arrays_.end() || index.size() > 6 || std::stoul(index) >= it->second.size()) {
        return ConfigError("command line: " + path + ": there is no [[" + array_name +
                           "]] number " + index);
      }
      it->second[std::stoul(index)].Set(key, std::move(value));
      return OkStatus();
    }
  }
  mutable_section(section_name).Set(key, std::move(value));
  return OkStatus();
}

const ConfigSection& Config::section(const std::string& name) const {
  static const ConfigSection empty;
  auto it = sections_.find(name);
  if (it != sections_.end()) return it->second;
  // An absent section still knows its name, for messages.
  static std::map<std::string, ConfigSection> absent;
  auto& section = absent[name];
  section.name = name;
  section.where = "defaults";
  return section;
}

ConfigSection& Config::mutable_section(const std::string& name) {
  ConfigSection& section = sections_[name];
  section.name = name;
  if (section.where.empty()) section.where = "command line";
  return section;
}

const std::vector<ConfigSection>& Config::array(const std::string& name) const {
  static const std::vector<ConfigSection> empty;
  auto it = arrays_.find(name);
  return it == arrays_.end() ? empty : it->second;
}

Status Config::CheckSections(const std::vector<std::string>& known) const {
  for (const auto& [name, section] : sections_) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      std::vector<std::string> named = known;
      std::erase(named, "");  // the top of the file is a section without a name
      return ConfigError(section.where + ": there is no section [" + name + "]" +
                         KnownWords(name, named));
    }
  }
  for (const auto& [name, list] : arrays_) {
    const std::vector<std::string> arrays = {"compressor.rule", "optimizer.rule"};
    if (std::find(arrays.begin(), arrays.end(), name) == arrays.end()) {
      return ConfigError(list[0].where + ": there is no [[" + name + "]]" +
                         KnownWords(name, arrays));
    }
  }
  return OkStatus();
}

std::string NearestWord(const std::string& word, const std::vector<std::string>& known) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 2) + 1;
  for (const auto& candidate : known) {
    const size_t distance = EditDistance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string KnownWords(const std::string& word, const std::vector<std::string>& known) {
  std::string out;
  const std::string nearest = NearestWord(word, known);
  if (!nearest.empty()) out += "; did you mean " + nearest + "?";
  out += " Known:";
  for (size_t i = 0; i < known.size(); ++i) out += (i ? ", " : " ") + known[i];
  return nearest.empty() ? ";" + out : out;
}

}  // namespace tw
