#pragma once
// Variants register themselves: one file, one registration line with name, wire id, config struct
// and factory. Nobody edits a list. Registration happens before main(); afterwards the registry is
// read-only and thread safe.
//
//   TW_REGISTER(Compressor, topk, /*wire_id=*/4, TopKConfig, TopK::Create, "k largest magnitudes");
//
// The factory is StatusOr<std::unique_ptr<Compressor>>(const TopKConfig&).

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/base/config_fields.h"

namespace tw {

// A variant without keys.
struct NoConfig {
  static FieldList<NoConfig> Fields() { return {}; }
};

template <class Interface>
class Registry {
 public:
  struct Entry {
    std::string name;
    int wire_id = 0;  // written into frames; never reused, never changed. 0: never travels
    std::string summary;
    std::vector<FieldInfo> fields;
    std::function<StatusOr<std::unique_ptr<Interface>>(const ConfigSection&)> make;
    std::function<StatusOr<std::vector<std::pair<std::string, FieldValue>>>(const ConfigSection&)>
        effective;  // all keys with their effective values
  };

  static Registry& Get() {
    static Registry registry;
    return registry;
  }
  // TW_CHECKs that neither name nor wire id is taken.
  bool Add(Entry entry) {
    for (const auto& [name, other] : entries_) {
      TW_CHECK(name != entry.name);
      TW_CHECK(entry.wire_id == 0 || entry.wire_id != other.wire_id);
    }
    entries_.emplace(entry.name, std::move(entry));
    return true;
  }
  const Entry* Find(const std::string& name) const {
    auto it = entries_.find(name);
    return it == entries_.end() ? nullptr : &it->second;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& [name, entry] : entries_) out.push_back(name);
    return out;
  }
  // Every key that some variant knows.
  std::vector<std::string> all_keys() const {
    std::vector<std::string> out;
    for (const auto& [name, entry] : entries_) {
      for (const auto& field : entry.fields) {
        if (std::find(out.begin(), out.end(), field.key) == out.end()) out.push_back(field.key);
      }
    }
    return out;
  }
  // Looks up section.name (default `fallback`); an unknown name is an error with place, nearest and
  // known names.
  StatusOr<const Entry*> Select(const ConfigSection& section, const std::string& fallback) const {
    const std::string name = section.GetString("name", fallback);
    const Entry* entry = Find(name);
    auto it = section.values.find("name");
    if (it != section.values.end()) it->second.used = true;
    if (!entry) {
      const std::string where = it == section.values.end() ? section.where : it->second.where;
      return ConfigError(where + ": " + section.name + ".name = \"" + name + "\" is not known" +
                         KnownWords(name, names()));
    }
    return entry;
  }
  StatusOr<std::unique_ptr<Interface>> Make(const ConfigSection& section,
                                            const std::string& fallback) const {
    TW_ASSIGN_OR_RETURN(const Entry* entry, Select(section, fallback));
    return entry->make(section);
  }

 private:
  std::map<std::string, Entry> entries_;
};

template <class Interface, class C, class Factory>
bool RegisterVariant(const char* name, int wire_id, Factory factory, const char* summary) {
  typename Registry<Interface>::Entry entry;
  entry.name = name;
  entry.wire_id = wire_id;
  entry.summary = summary;
  entry.fields = C::Fields().infos();
  entry.make = [factory](const ConfigSection& s) -> StatusOr<std::unique_ptr<Interface>> {
    TW_ASSIGN_OR_RETURN(C config, ParseFields<C>(s));
    return factory(config);
  };
  entry.effective =
      [](const ConfigSection& s) -> StatusOr<std::vector<std::pair<std::string, FieldValue>>> {
    TW_ASSIGN_OR_RETURN(C config, ParseFields<C>(s));
    return DumpFields(config);
  };
  return Registry<Interface>::Get().Add(std::move(entry));
}

}  // namespace tw

#define TW_REGISTER(Interface, name, wire_id, ConfigStruct, factory, summary) \
  [[maybe_unused]] static const bool tw_registered_##name =                   \
      ::tw::RegisterVariant<Interface, ConfigStruct>(#name, wire_id, factory, summary)
