// The manifest, and what one process can say about a checkpoint folder without the others.

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/base/file_io.h"
#include "core/base/hash.h"
#include "core/engine/checkpoint.h"

namespace tw {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "tightwire-checkpoint";
constexpr int kVersion = 1;

uint64_t ChecksumOf(const Json& manifest) { return Hash64(manifest.dump()); }

bool ParseHex(const std::string& text, uint64_t* value) {
  if (text.size() != 16) return false;
  char* end = nullptr;
  *value = std::strtoull(text.c_str(), &end, 16);
  return *end == 0;
}

// The step in a folder's name; -1 when it is no checkpoint's.
int64_t StepOfName(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (name.compare(0, kPrefix.size(), kPrefix) != 0) return -1;
  const std::string digits = name.substr(kPrefix.size());
  if (digits.size() < 8 || digits.size() > 18) return -1;
  if (digits.find_first_not_of("0123456789") != std::string::npos) return -1;
  return std::stoll(digits);
}

}  // namespace

std::string CheckpointManifest::ToJson() const {
  Json json;
  json["format"] = kFormat;
  json["version"] = kVersion;
  json["step"] = step;
  json["world_size"] = world_size;
  json["config_hash"] = config_hash;
  json["config"] = config;
  json["threads"] = threads;
  json["simd"] = simd;
  json["seed"] = seed;
  json["counters"] = counters;
  json["files"] = Json::array();
  for (const File& file : files) {
    json["files"].push_back(
        {{"name", file.name}, {"bytes", file.bytes}, {"xxh3", Hex64(file.hash)}});
  }
  json["checksum"] = Hex64(ChecksumOf(json));
  return json.dump(1) + "\n";
}

StatusOr<CheckpointManifest> CheckpointManifest::Parse(const std::string& path,
                                                       const std::string& text) {
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.value("format", Json()) != kFormat) {
    return DataError(path + ": is no checkpoint manifest");
  }
  if (json.value("version", Json()) != kVersion) {
    return DataError(path + ": manifest version " + json.value("version", Json()).dump() +
                     "; this program reads version " + std::to_string(kVersion));
  }
  const Json checksum = json.value("checksum", Json());
  json.erase("checksum");
  if (checksum != Hex64(ChecksumOf(json))) return DataError(path + ": checksum differs");
  // From here it is what a tightwire wrote: exceptions mean another one's idea of version 1.
  try {
    CheckpointManifest out;
    out.step = json.at("step");
    out.world_size = json.at("world_size");
    out.config_hash = json.at("config_hash");
    out.config = json.value("config", "");
    out.threads = json.at("threads");
    out.simd = json.at("simd");
    out.seed = json.at("seed");
    out.counters = json.at("counters").get<std::map<std::string, int64_t>>();
    for (const Json& file : json.at("files")) {
      File entry{file.at("name"), file.at("bytes"), 0};
      if (!ParseHex(file.at("xxh3"), &entry.hash) || fs::path(entry.name).has_parent_path()) {
        return DataError(path + ": file entry " + file.dump() + " is malformed");
      }
      out.files.push_back(std::move(entry));
    }
    if (out.step < 0 || out.world_size < 1) return DataError(path + ": numbers out of range");
    return out;
  } catch (const nlohmann::json::exception& e) {
    return DataError(path + ": " + e.what());
  }
}

std::string CheckpointName(int64_t step) {
  char name[40];
  std::snprintf(name, sizeof(name), "step-%08" PRId64, step);
  return name;
}

std::vector<std::string> FindCheckpoints(const std::string& run_dir) {
  std::vector<std::pair<int64_t, std::string>> found;
  std::error_code error;
  for (fs::directory_iterator it(fs::path(run_dir) / "checkpoints", error), end;
       !error && it != end; it.increment(error)) {
    const int64_t step = StepOfName(it->path().filename().string());
    std::error_code ignored;
    if (step >= 0 && it->is_directory(ignored)) found.emplace_back(step, it->path().string());
  }
  std::sort(found.rbegin(), found.rend());
  std::vector<std::string> out;
  for (auto& [step, path] : found) out.push_back(std::move(path));
  return out;
}

StatusOr<CheckpointManifest> ReadManifest(const std::string& folder) {
  const std::string path = (fs::path(folder) / "manifest.json").string();
  TW_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  return CheckpointManifest::Parse(path, text);
}

Status VerifyCheckpointFiles(const std::string& folder, const CheckpointManifest& manifest,
                             int part, int parts) {
  for (size_t i = static_cast<size_t>(part); i < manifest.files.size();
       i += static_cast<size_t>(parts)) {
    const CheckpointManifest::File& file = manifest.files[i];
    const std::string path = (fs::path(folder) / file.name).string();
    TW_ASSIGN_OR_RETURN(const FileDigest found, DigestFile(path));
    if (found.bytes != file.bytes) {
      return DataError(path + ": damaged: " + std::to_string(found.bytes) + " bytes long, " +
                       std::to_string(file.bytes) + " were written");
    }
    if (found.hash != file.hash) {
      return DataError(path + ": damaged: checksum " + Hex64(found.hash) + ", " + Hex64(file.hash) +
                       " was written");
    }
  }
  return OkStatus();
}

StatusOr<std::string> ResolveWeights(const std::string& path, std::vector<std::string>* warnings) {
  std::error_code error;
  if (fs::is_regular_file(path, error)) return path;
  if (!fs::is_directory(path, error)) return DataError(path + ": no such file or folder");
  std::vector<std::string> candidates = {path};
  if (!fs::exists(fs::path(path) / "manifest.json", error)) candidates = FindCheckpoints(path);
  if (candidates.empty()) {
    return DataError(path +
                     ": holds no checkpoint; wanted a run folder, a checkpoint folder "
                     "(step-00001000) or a safetensors file");
  }
  Status last;
  for (const std::string& folder : candidates) {
    auto manifest = ReadManifest(folder);
    last = manifest.ok() ? VerifyCheckpointFiles(folder, *manifest) : manifest.status();
    if (last.ok()) return (fs::path(folder) / "model.safetensors").string();
    if (warnings) warnings->push_back("checkpoint passed over: " + std::string(last.message()));
  }
  return last;
}

}  // namespace tw
