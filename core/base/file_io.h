#pragma once
// Files that must be whole or absent: every write is checked, every failure is one DataError that
// names the file and what the system said ("runs/a/metrics.jsonl: cannot write: No space left on
// device"). Not thread safe.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "core/base/bytes.h"
#include "core/base/status.h"

namespace tw {

// DataError "<path>: cannot <verb>: <strerror(error_number)>".
Status FileError(const std::string& path, const char* verb, int error_number);

// A file open for writing. Bytes are with the kernel when Write returns; on the disk after Sync.
class OutputFile {
 public:
  enum class Mode { kTruncate, kAppend };
  static StatusOr<OutputFile> Open(const std::string& path, Mode mode);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;
  ~OutputFile();

  // One system call where the kernel takes all of it, so that a killed process leaves whole lines.
  Status Write(ByteSpan bytes);
  Status Write(std::string_view text) {
    return Write(ByteSpan(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
  }
  // Cuts the file to `bytes` and goes on there.
  Status Truncate(int64_t bytes);
  Status Sync();
  // Sync is separate: Close only reports what the system kept back until now.
  Status Close();
  const std::string& path() const { return path_; }

 private:
  OutputFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  std::string path_;
  int fd_ = -1;
};

// The whole of a (small) file.
StatusOr<std::string> ReadTextFile(const std::string& path);
// Streams a file of any size through `take` in pieces.
Status ReadPieces(const std::string& path, const std::function<void(ByteSpan)>& take);
// XXH3-64 of a file's bytes and their number.
struct FileDigest {
  uint64_t hash = 0;
  int64_t bytes = 0;
};
StatusOr<FileDigest> DigestFile(const std::string& path);
// Makes a finished file or folder durable: fsync of what is at `path`.
Status SyncPath(const std::string& path);
// Writes `text` to path whole: temporary name beside it, fsync, rename.
Status WriteTextFileAtomically(const std::string& path, std::string_view text);

}  // namespace tw
