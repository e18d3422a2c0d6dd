#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/bytes.h"
#include "core/base/file_io.h"
#include "core/nn/safetensors/dtype.h"
#include "core/nn/safetensors/safetensors.h"

namespace tw {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr int64_t kMaxElements = int64_t{1} << 48;  // products of sizes stay far from overflow

// Names come from the file: short and printable in an error line.
std::string Printable(const std::string& text) {
  std::string out;
  for (char c : text.substr(0, 80)) out += (c >= 32 && c < 127) ? c : '?';
  return out;
}

// Parses the header; nlohmann keeps the last of two equal keys silently, the format forbids them.
StatusOr<nlohmann::json> ParseJson(const std::string& path, ByteSpan bytes) {
  std::set<std::string> keys;
  std::string twice;
  const auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (depth == 1 && event == nlohmann::json::parse_event_t::key) {
      const std::string key = parsed.get<std::string>();
      if (!keys.insert(key).second) twice = key;
    }
    return true;
  };
  auto json = nlohmann::json::parse(bytes.begin(), bytes.end(), watch, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) {
    return DataError(path + ": the safetensors header is no JSON object");
  }
  if (!twice.empty()) return DataError(path + ": tensor " + Printable(twice) + " is listed twice");
  return json;
}

// One entry's dtype, shape and offsets, checked against each other.
StatusOr<SafetensorsFile::Entry> ParseEntry(const std::string& where, const nlohmann::json& json) {
  const auto is_size = [](const nlohmann::json& v) {
    return v.is_number_unsigned() && v.get<uint64_t>() <= static_cast<uint64_t>(kMaxElements);
  };
  if (!json.is_object() || !json.contains("dtype") || !json["dtype"].is_string() ||
      !json.contains("shape") || !json["shape"].is_array() || !json.contains("data_offsets") ||
      !json["data_offsets"].is_array() || json["data_offsets"].size() != 2 ||
      !is_size(json["data_offsets"][0]) || !is_size(json["data_offsets"][1])) {
    return DataError(where + ": dtype, shape or data_offsets is missing or malformed");
  }
  SafetensorsFile::Entry entry;
  const std::string dtype = json["dtype"];
  if (!DtypeOfWord(dtype, &entry.dtype)) {
    return DataError(where + ": dtype " + Printable(dtype) + " is not known; " + KnownDtypeWords());
  }
  int64_t numel = 1;
  for (const auto& size : json["shape"]) {
    if (!is_size(size)) return DataError(where + ": a size of its shape is no number of elements");
    entry.shape.push_back(size.get<int64_t>());
    if (entry.shape.back() != 0 && numel > kMaxElements / entry.shape.back()) {
      return DataError(where + ": its shape has too many elements");
    }
    numel *= entry.shape.back();
  }
  entry.begin = json["data_offsets"][0].get<int64_t>();
  entry.end = json["data_offsets"][1].get<int64_t>();
  const int64_t need = numel * static_cast<int64_t>(c10::elementSize(entry.dtype));
  if (entry.end - entry.begin != need) {
    return DataError(where + ": " + dtype + " of its shape takes " + std::to_string(need) +
                     " bytes, its offsets give " + std::to_string(entry.end - entry.begin));
  }
  return entry;
}

}  // namespace

struct SafetensorsFile::Mapping {
  void* address = nullptr;
  size_t bytes = 0;
  ~Mapping() {
    if (address != nullptr) ::munmap(address, bytes);
  }
  ByteSpan span() const { return {static_cast<const uint8_t*>(address), bytes}; }
};

SafetensorsFile::SafetensorsFile(std::string path, std::unique_ptr<Mapping> mapping)
    : path_(std::move(path)), mapping_(std::move(mapping)) {}
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;
SafetensorsFile::~SafetensorsFile() = default;

StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError(path, "open", errno);
  auto mapping = std::make_unique<Mapping>();
  struct stat info {};
  int error = ::fstat(fd, &info) == 0 ? 0 : errno;
  if (error == 0 && S_ISDIR(info.st_mode)) error = EISDIR;
  if (error == 0 && info.st_size > 0) {
    mapping->bytes = static_cast<size_t>(info.st_size);
    void* address = ::mmap(nullptr, mapping->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address == MAP_FAILED) {
      error = errno;
    } else {
      mapping->address = address;
    }
  }
  ::close(fd);
  if (error != 0) return FileError(path, "read", error);
  if (mapping->address == nullptr)
    return DataError(path + ": the file is empty, no safetensors file");
  SafetensorsFile file(path, std::move(mapping));
  TW_RETURN_IF_ERROR(file.ParseHeader());
  return file;
}

Status SafetensorsFile::ParseHeader() {
  const ByteSpan bytes = mapping_->span();
  if (bytes.size() < 8) {
    return DataError(path_ + ": " + std::to_string(bytes.size()) +
                     " bytes are too few for a safetensors file");
  }
  const auto header_bytes = LoadLE<uint64_t>(bytes.data());
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - 8) {
    return DataError(
        path_ + ": no safetensors file, or cut off: it starts with a header length of " +
        std::to_string(header_bytes) + " and is " + std::to_string(bytes.size()) + " bytes long");
  }
  data_begin_ = static_cast<int64_t>(8 + header_bytes);
  TW_ASSIGN_OR_RETURN(const nlohmann::json header,
                      ParseJson(path_, bytes.subspan(8, static_cast<size_t>(header_bytes))));
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) return DataError(path_ + ": __metadata__ is no object");
      for (const auto& [key, text] : value.items()) {
        if (!text.is_string())
          return DataError(path_ + ": __metadata__ holds something that is no text");
        metadata_[key] = text.get<std::string>();
      }
      continue;
    }
    TW_ASSIGN_OR_RETURN(entries_[name], ParseEntry(path_ + ": tensor " + Printable(name), value));
  }
  std::vector<std::pair<std::pair<int64_t, int64_t>, std::string>> by_offset;
  for (const auto& [name, entry] : entries_) by_offset.push_back({{entry.begin, entry.end}, name});
  std::sort(by_offset.begin(), by_offset.end());
  const int64_t held = static_cast<int64_t>(bytes.size()) - data_begin_;
  int64_t at = 0;
  for (const auto& [range, name] : by_offset) {
    if (range.first != at) {
      return DataError(path_ + ": tensor " + Printable(name) + " begins at byte " +
                       std::to_string(range.first) + " where " + std::to_string(at) +
                       " is next: " + (range.first < at ? "overlap" : "gap"));
    }
    at = range.second;
    if (at > held) {
      return DataError(path_ + ": tensor " + Printable(name) + " ends at byte " +
                       std::to_string(at) + ", but only " + std::to_string(held) +
                       " are there: the file is cut off");
    }
  }
  if (at != held) {
    return DataError(path_ + ": " + std::to_string(held - at) + " bytes behind the last tensor");
  }
  return OkStatus();
}

StatusOr<at::Tensor> SafetensorsFile::Read(const std::string& name) const {
  const auto it = entries_.find(name);
  if (it == entries_.end()) return DataError(path_ + ": has no tensor " + name);
  const Entry& entry = it->second;
  at::Tensor out = at::empty(entry.shape, entry.dtype);
  if (entry.end > entry.begin) {
    std::memcpy(out.mutable_data_ptr(), mapping_->span().data() + data_begin_ + entry.begin,
                static_cast<size_t>(entry.end - entry.begin));
  }
  return out;
}

}  // namespace tw
