#include <ATen/core/Tensor.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/base/bytes.h"
#include "core/base/file_io.h"
#include "core/nn/safetensors/dtype.h"
#include "core/nn/safetensors/safetensors.h"

namespace tw {
namespace {

// Header length and JSON, padded with blanks so that the tensors start at a multiple of 8. A JSON
// object of nlohmann's is sorted by key: the bytes depend on the content alone.
StatusOr<std::string> MakeHeader(const NamedTensors& tensors,
                                 const std::map<std::string, std::string>& metadata) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t at = 0;
  for (const auto& [name, tensor] : tensors) {
    const char* word = WordOfDtype(tensor.scalar_type());
    if (word == nullptr) {
      return ConfigError("tensor " + name + ": safetensors has no word for dtype " +
                         c10::toString(tensor.scalar_type()));
    }
    if (header.contains(name) || name == "__metadata__")
      return BugError("tensor name " + name + " is taken");
    const auto bytes = static_cast<int64_t>(tensor.nbytes());
    header[name] = {
        {"dtype", word}, {"shape", tensor.sizes().vec()}, {"data_offsets", {at, at + bytes}}};
    at += bytes;
  }
  std::string json = header.dump();
  json.resize((json.size() + 7) / 8 * 8, ' ');
  std::string out(8, '\0');
  StoreLE<uint64_t>(reinterpret_cast<uint8_t*>(out.data()), json.size());
  return out + json;
}

Status WriteAll(const std::string& path, const std::string& header, const NamedTensors& tensors) {
  TW_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Open(path, OutputFile::Mode::kTruncate));
  TW_RETURN_IF_ERROR(file.Write(header));
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor flat = tensor.detach().to(at::kCPU).contiguous();
    TW_RETURN_IF_ERROR(
        file.Write(ByteSpan(static_cast<const uint8_t*>(flat.const_data_ptr()), flat.nbytes())));
  }
  TW_RETURN_IF_ERROR(file.Sync());
  return file.Close();
}

}  // namespace

Status WriteSafetensors(const std::string& path, const NamedTensors& tensors,
                        const std::map<std::string, std::string>& metadata) {
  NamedTensors sorted = tensors;
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return std::make_pair(-static_cast<int64_t>(a.second.element_size()), a.first) <
           std::make_pair(-static_cast<int64_t>(b.second.element_size()), b.first);
  });
  TW_ASSIGN_OR_RETURN(const std::string header, MakeHeader(sorted, metadata));
  const std::string temporary = path + ".tmp";
  Status status = WriteAll(temporary, header, sorted);
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0)
    status = FileError(path, "write", errno);
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return SyncPath(folder.empty() ? "." : folder);
}

}  // namespace tw
