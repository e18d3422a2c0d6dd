#include "core/data/file.h"

#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <vector>

#include "core/base/file_io.h"

namespace tw {
namespace {

bool EndsWith(const std::string& text, const std::string& tail) {
  return text.size() >= tail.size() &&
         text.compare(text.size() - tail.size(), tail.size(), tail) == 0;
}

}  // namespace

bool FileExists(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

bool IsFolder(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

StatusOr<std::string> Gunzip(const std::string& packed, const std::string& name) {
  z_stream z{};
  constexpr int kGzipOnly = 15 + 16;
  if (inflateInit2(&z, kGzipOnly) != Z_OK) return BugError("zlib refused to start");
  std::string out;
  std::vector<unsigned char> chunk(1 << 18);
  size_t fed = 0;
  int code = Z_OK;
  for (;;) {
    if (z.avail_in == 0 && fed < packed.size()) {
      const size_t n = std::min<size_t>(packed.size() - fed, size_t{1} << 30);
      z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data() + fed));
      z.avail_in = static_cast<uInt>(n);
      fed += n;
    }
    z.next_out = chunk.data();
    z.avail_out = static_cast<uInt>(chunk.size());
    code = inflate(&z, Z_NO_FLUSH);
    out.append(reinterpret_cast<char*>(chunk.data()), chunk.size() - z.avail_out);
    const bool input_left = z.avail_in > 0 || fed < packed.size();
    if (code == Z_STREAM_END) {
      if (!input_left) break;
      inflateReset(&z);  // the next member of a concatenated file
    } else if (code != Z_OK || (!input_left && z.avail_out > 0)) {
      break;
    }
  }
  const std::string why = z.msg != nullptr ? z.msg : "";
  inflateEnd(&z);
  if (code == Z_STREAM_END) return out;
  if (code == Z_OK || code == Z_BUF_ERROR) {
    return DataError(name + ": gzip data ends too early, after " + std::to_string(out.size()) +
                     " unpacked bytes: the file is cut off");
  }
  return DataError(name + ": damaged gzip data" + (why.empty() ? "" : " (" + why + ")"));
}

StatusOr<std::string> ReadDataFile(const std::string& path) {
  if (IsFolder(path)) return DataError(path + ": is a folder, a file is needed here");
  TW_ASSIGN_OR_RETURN(std::string bytes, ReadTextFile(path));
  if (bytes.empty()) return DataError(path + ": the file is empty");
  const bool packed = bytes.size() >= 2 && bytes[0] == '\x1f' && bytes[1] == '\x8b';
  if (!packed) {
    if (EndsWith(path, ".gz")) return DataError(path + ": named .gz but holds no gzip data");
    return bytes;
  }
  TW_ASSIGN_OR_RETURN(std::string out, Gunzip(bytes, path));
  if (out.empty()) return DataError(path + ": the file is empty once unpacked");
  return out;
}

Status WriteCacheFile(const std::string& path, const std::string& bytes) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  const std::string own = path + "." + std::to_string(::getpid());
  TW_RETURN_IF_ERROR(WriteTextFileAtomically(own, bytes));
  if (std::rename(own.c_str(), path.c_str()) != 0) return FileError(path, "write", errno);
  return OkStatus();
}

}  // namespace tw
