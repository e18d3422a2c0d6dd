// list: everything registered, with its keys.

#include <iomanip>
#include <nlohmann/json.hpp>
#include <ostream>

#include "core/api/activation_codec.h"
#include "core/api/activations.h"
#include "core/api/exchange.h"
#include "core/api/feedback.h"
#include "core/api/metrics.h"
#include "core/api/optimizer.h"
#include "core/api/planner.h"
#include "core/api/schedule.h"
#include "core/api/strategy.h"
#include "core/api/task.h"
#include "core/nn/model/model_factory.h"
#include "launch/commands.h"
#include "launch/list_kernels.h"
#include "launch/settings.h"

namespace tw {
namespace {

using Json = nlohmann::ordered_json;

Json ToJson(const FieldValue& value) {
  return std::visit([](const auto& v) { return Json(v); }, value);
}

Json KeysJson(const std::vector<FieldInfo>& fields) {
  Json keys = Json::array();
  for (const FieldInfo& f : fields) {
    keys.push_back({{"key", f.key},
                    {"default", ToJson(f.default_value)},
                    {"range", f.range},
                    {"help", f.help}});
  }
  return keys;
}

// What only a kind knows about its variants: printed after the summary, merged into the JSON row.
template <class Interface>
Json Extra(const typename Registry<Interface>::Entry&) {
  return Json::object();
}

template <>
Json Extra<Compressor>(const Registry<Compressor>::Entry& entry) {
  auto codec = entry.make(ConfigSection{});
  if (!codec.ok()) return Json::object();
  const CompressorTraits& traits = (*codec)->traits();
  std::string merges;
  for (Merge m : traits.merges) merges += (merges.empty() ? "" : ",") + std::string(MergeName(m));
  return {{"wire_id", entry.wire_id},
          {"merge", merges},
          {"unbiased", traits.unbiased},
          {"rounds", traits.rounds}};
}

struct Row {
  std::string kind, name, summary;
  std::vector<FieldInfo> fields;
  Json extra;
};

template <class Interface>
void Append(const std::string& kind, std::vector<Row>* rows) {
  for (const std::string& name : Registry<Interface>::Get().names()) {
    const auto* entry = Registry<Interface>::Get().Find(name);
    rows->push_back({kind, name, entry->summary, entry->fields, Extra<Interface>(*entry)});
  }
}

}  // namespace

Status RunList(const std::string& kind, bool json, std::ostream& out) {
  std::vector<Row> rows;
  Append<TaskKind>("task", &rows);
  Append<ModelFactory>("model", &rows);
  Append<Compressor>("compressor", &rows);
  Append<FeedbackPolicy>("feedback", &rows);
  Append<Exchange>("exchange", &rows);
  Append<Planner>("planner", &rows);
  Append<Strategy>("strategy", &rows);
  Append<Optimizer>("optimizer", &rows);
  Append<StateCodec>("state", &rows);
  Append<Schedule>("schedule", &rows);
  Append<ActivationPolicy>("activation", &rows);
  Append<ActivationCodec>("activation_codec", &rows);
  Append<MetricSinkKind>("sink", &rows);
  for (const auto& [section, fields] : CommonFields()) {
    rows.push_back({"section", section.empty() ? "(top)" : section, "keys of every run", fields,
                    Json::object()});
  }
  // What this machine has; so only where it is asked for.
  if (kind == "kernel" || kind == "kernels") {
    ListKernels(ThisMachinesDevices(), json, out);
    return OkStatus();
  }
  std::vector<std::string> kinds = {"kernel"};
  for (const Row& row : rows) {
    if (kinds.empty() || kinds.back() != row.kind) kinds.push_back(row.kind);
  }
  std::string wanted = kind;
  if (wanted.size() > 1 && wanted.back() == 's' &&
      std::find(kinds.begin(), kinds.end(), wanted) == kinds.end()) {
    wanted.pop_back();  // "compressors"
  }
  if (!wanted.empty() && std::find(kinds.begin(), kinds.end(), wanted) == kinds.end()) {
    return ConfigError("list " + kind + ": there is no such kind" + KnownWords(wanted, kinds));
  }
  std::string printed;
  for (const Row& row : rows) {
    if (!wanted.empty() && row.kind != wanted) continue;
    if (json) {
      Json j = {{"kind", row.kind}, {"name", row.name}};
      j.update(row.extra);
      j["summary"] = row.summary;
      j["keys"] = KeysJson(row.fields);
      out << j.dump() << "\n";
      continue;
    }
    if (row.kind != printed) out << (printed.empty() ? "" : "\n") << row.kind << "\n";
    printed = row.kind;
    out << "  " << std::left << std::setw(14) << row.name << row.summary;
    if (row.extra.contains("merge")) {
      out << "  [" << row.extra["merge"].get<std::string>()
          << (row.extra["unbiased"].get<bool>() ? ", unbiased" : "") << "]";
    }
    out << "\n";
    for (const FieldInfo& f : row.fields) {
      out << "    " << std::left << std::setw(20) << f.key << " " << std::setw(10)
          << ToToml(f.default_value) << " " << f.help
          << (f.range.empty() ? "" : "  (" + f.range + ")") << "\n";
    }
  }
  return OkStatus();
}

}  // namespace tw
