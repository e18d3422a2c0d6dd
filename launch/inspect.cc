#include "launch/inspect.h"

#include <ATen/core/Tensor.h>
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/base/file_io.h"
#include "core/base/hash.h"
#include "core/engine/checkpoint.h"
#include "core/nn/safetensors/safetensors.h"

namespace tw {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Columns as wide as their widest cell, numbers to the right; in the last column texts may be
// longer than the numbers.
class Table {
 public:
  explicit Table(std::vector<std::string> head) { rows_.push_back(std::move(head)); }
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  void Print(std::ostream& out) const {
    std::vector<size_t> widths(rows_[0].size());
    for (const auto& row : rows_) {
      for (size_t i = 0; i < row.size(); ++i) {
        if (i + 1 < row.size() || Right(row[i])) widths[i] = std::max(widths[i], row[i].size());
      }
    }
    for (const auto& row : rows_) {
      std::string line(2, ' ');
      for (size_t i = 0; i < row.size(); ++i) {
        const std::string pad(widths[i] - std::min(widths[i], row[i].size()), ' ');
        line += Right(row[i]) ? pad : row[i];
        line += Right(row[i]) ? row[i] : pad;
        line += "  ";
      }
      line.erase(line.find_last_not_of(' ') + 1);
      out << line << '\n';
    }
  }

 private:
  static bool Right(const std::string& cell) {
    return !cell.empty() && (std::isdigit(static_cast<unsigned char>(cell[0])) || cell[0] == '-');
  }

  std::vector<std::vector<std::string>> rows_;
};

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

std::string Short(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.6g", value);
  return text;
}

// Euclidean norm in fp64, so that it does not depend on the dtype's range.
double NormOf(const at::Tensor& tensor) { return tensor.to(at::kDouble).norm().item<double>(); }

StatusOr<Json> TensorsOf(const std::string& path) {
  TW_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(path));
  Json tensors = Json::array();
  int64_t params = 0, bytes = 0;
  for (const auto& [name, entry] : file.entries()) {
    TW_ASSIGN_OR_RETURN(const at::Tensor tensor, file.Read(name));
    tensors.push_back({{"name", name},
                       {"dtype", c10::toString(entry.dtype)},
                       {"shape", entry.shape},
                       {"norm", NormOf(tensor)}});
    params += tensor.numel();
    bytes += entry.end - entry.begin;
  }
  Json out = {{"tensors", std::move(tensors)}, {"elements", params}, {"bytes", bytes}};
  if (!file.metadata().empty()) out["metadata"] = file.metadata();
  return out;
}

void PrintTensors(const Json& tensors, std::ostream& out) {
  Table table({"name", "dtype", "shape", "norm"});
  for (const Json& t : tensors["tensors"]) {
    table.Add({t["name"], t["dtype"], ShapeText(t["shape"].get<std::vector<int64_t>>()),
               t["norm"].is_number() ? Short(t["norm"].get<double>()) : t["norm"].dump()});
  }
  table.Print(out);
  out << "  " << tensors["tensors"].size() << " tensors, " << tensors["elements"] << " elements, "
      << tensors["bytes"] << " bytes\n";
  if (tensors.contains("metadata")) out << "  metadata " << tensors["metadata"].dump() << '\n';
}

// Bytes and number of slots by owner ("feedback", "optim", ...), which is what stands in front of
// a slot's first slash.
Status AddSlots(const std::string& path,
                std::map<std::string, std::pair<int64_t, int64_t>>* owners) {
  TW_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(path));
  for (const auto& [name, entry] : file.entries()) {
    auto& [slots, bytes] = (*owners)[name.substr(0, name.find('/'))];
    ++slots;
    bytes += entry.end - entry.begin;
  }
  return OkStatus();
}

Json CheckpointLine(const std::string& folder) {
  Json out = {{"path", folder}};
  const auto manifest = ReadManifest(folder);
  Status status = manifest.status();
  if (manifest.ok()) {
    int64_t bytes = 0;
    for (const auto& file : manifest->files) bytes += file.bytes;
    out["step"] = manifest->step;
    out["world_size"] = manifest->world_size;
    out["bytes"] = bytes;
    status = VerifyCheckpointFiles(folder, *manifest);
  }
  out["status"] = status.ok() ? "whole" : std::string(status.message());
  return out;
}

StatusOr<Json> InspectCheckpoint(const std::string& folder) {
  TW_ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(folder));
  Json out = CheckpointLine(folder);
  out["kind"] = "checkpoint";
  out["config_hash"] = manifest.config_hash;
  out["threads"] = manifest.threads;
  out["simd"] = manifest.simd;
  out["seed"] = manifest.seed;
  out["counters"] = manifest.counters;
  out["files"] = Json::array();
  std::map<std::string, std::pair<int64_t, int64_t>> replicated, by_rank;
  for (const auto& file : manifest.files) {
    out["files"].push_back(
        {{"name", file.name}, {"bytes", file.bytes}, {"xxh3", Hex64(file.hash)}});
    const std::string path = (fs::path(folder) / file.name).string();
    if (file.name == "model.safetensors") {
      const auto model = TensorsOf(path);
      if (model.ok()) out["model"] = *model;
    } else {
      // A damaged file was reported by its checksum; what can still be read is shown.
      (void)AddSlots(path, file.name.rfind("rank-", 0) == 0 ? &by_rank : &replicated);
    }
  }
  out["state"] = Json::array();
  const auto add = [&](const char* where, const auto& owners) {
    for (const auto& [owner, sum] : owners) {
      out["state"].push_back(
          {{"owner", owner}, {"kept", where}, {"slots", sum.first}, {"bytes", sum.second}});
    }
  };
  add("once", replicated);
  add("by every rank", by_rank);
  return out;
}

void PrintCheckpoint(const Json& c, std::ostream& out) {
  out << "checkpoint " << c["path"].get<std::string>() << ": " << c["status"].get<std::string>()
      << '\n';
  Table facts({"step", "world_size", "threads", "simd", "seed", "config_hash", "counters"});
  facts.Add({c["step"].dump(), c["world_size"].dump(), c["threads"].dump(), c["simd"],
             c["seed"].dump(), c["config_hash"], c["counters"].dump()});
  facts.Print(out);
  out << "files\n";
  Table files({"name", "bytes", "xxh3"});
  for (const Json& f : c["files"]) files.Add({f["name"], f["bytes"].dump(), f["xxh3"]});
  files.Print(out);
  if (c.contains("model")) {
    out << "model\n";
    PrintTensors(c["model"], out);
  }
  out << "state\n";
  Table state({"owner", "kept", "slots", "bytes"});
  for (const Json& s : c["state"]) {
    state.Add({s["owner"], s["kept"], s["slots"].dump(), s["bytes"].dump()});
  }
  state.Print(out);
}

// The last whole line of metrics.jsonl; null when there is none.
Json LastMetrics(const std::string& text) {
  Json last;
  for (size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
    if (text.find('\n', end + 1) != std::string::npos) continue;
    last = Json::parse(text.substr(at, end - at), nullptr, false);
  }
  return last.is_discarded() ? Json() : last;
}

StatusOr<Json> InspectRun(const std::string& folder) {
  Json out = {{"kind", "run"}, {"path", folder}};
  const auto read = [&](const char* name) -> std::string {
    const auto text = ReadTextFile((fs::path(folder) / name).string());
    return text.ok() ? *text : std::string();
  };
  out["config"] = read("config.toml");
  const Json summary = Json::parse(read("summary.json"), nullptr, false);
  out["summary"] = summary.is_discarded() ? Json() : summary;
  out["last_metrics"] = LastMetrics(read("metrics.jsonl"));
  out["checkpoints"] = Json::array();
  for (const std::string& c : FindCheckpoints(folder)) {
    out["checkpoints"].push_back(CheckpointLine(c));
  }
  return out;
}

void PrintRun(const Json& run, std::ostream& out) {
  out << "run " << run["path"].get<std::string>() << '\n';
  const auto print_object = [&](const char* title, const Json& object, const char* absent) {
    out << title << '\n';
    if (!object.is_object()) {
      out << "  " << absent << '\n';
      return;
    }
    Table table({"key", "value"});
    for (const auto& [key, value] : object.items()) {
      // The plan has a line for every parameter: `explain` shows it.
      const bool large = value.is_structured() && value.size() > 8;
      table.Add({key, large               ? std::to_string(value.size()) + " entries"
                      : value.is_string() ? value.get<std::string>()
                                          : value.dump()});
    }
    table.Print(out);
  };
  print_object("summary", run["summary"], "none: the run has not ended, or was killed");
  print_object("last metrics", run["last_metrics"], "none");
  out << "checkpoints\n";
  if (run["checkpoints"].empty()) out << "  none\n";
  if (!run["checkpoints"].empty()) {
    Table table({"step", "ranks", "bytes", "status"});
    for (const Json& c : run["checkpoints"]) {
      const auto cell = [&](const char* key) { return c.contains(key) ? c[key].dump() : "?"; };
      table.Add({cell("step"), cell("world_size"), cell("bytes"), c["status"]});
    }
    table.Print(out);
  }
  out << "config\n";
  const std::string config = run["config"];
  if (config.empty()) out << "  none\n";
  for (size_t at = 0; at < config.size();) {
    const size_t end = std::min(config.find('\n', at), config.size());
    out << "  " << config.substr(at, end - at) << '\n';
    at = end + 1;
  }
}

bool IsRunFolder(const fs::path& path) {
  std::error_code error;
  for (const char* name : {"config.toml", "metrics.jsonl", "summary.json", "checkpoints"}) {
    if (fs::exists(path / name, error)) return true;
  }
  return false;
}

}  // namespace

Status RunInspect(const std::string& path, bool json, std::ostream& out) {
  std::error_code error;
  Json found;
  if (fs::is_regular_file(path, error)) {
    TW_ASSIGN_OR_RETURN(found, TensorsOf(path));
    found["kind"] = "safetensors";
    found["path"] = path;
    if (!json) PrintTensors(found, out);
  } else if (fs::exists(fs::path(path) / "manifest.json", error)) {
    TW_ASSIGN_OR_RETURN(found, InspectCheckpoint(path));
    if (!json) PrintCheckpoint(found, out);
  } else if (fs::is_directory(path, error) && IsRunFolder(path)) {
    TW_ASSIGN_OR_RETURN(found, InspectRun(path));
    if (!json) PrintRun(found, out);
  } else {
    return DataError(
        path + (fs::exists(path, error) ? ": is none of these: " : ": is not there; wanted ") +
        "a run folder, a checkpoint folder (step-00001000) or a safetensors file");
  }
  if (json) out << found.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
  return OkStatus();
}

}  // namespace tw
