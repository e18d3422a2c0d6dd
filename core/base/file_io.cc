#include "core/base/file_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "core/base/hash.h"

namespace tw {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

}  // namespace

Status FileError(const std::string& path, const char* verb, int error_number) {
  return DataError(path + ": cannot " + verb + ": " + std::strerror(error_number));
}

StatusOr<OutputFile> OutputFile::Open(const std::string& path, Mode mode) {
  const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (mode == Mode::kTruncate ? O_TRUNC : O_APPEND);
  const int fd = ::open(path.c_str(), flags, 0644);
  if (fd < 0) return FileError(path, "open for writing", errno);
  return OutputFile(path, fd);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    path_ = std::move(other.path_);
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

Status OutputFile::Write(ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return FileError(path_, "write", errno);
    }
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return OkStatus();
}

Status OutputFile::Truncate(int64_t bytes) {
  if (::ftruncate(fd_, bytes) != 0) return FileError(path_, "truncate", errno);
  if (::lseek(fd_, 0, SEEK_END) < 0) return FileError(path_, "seek in", errno);
  return OkStatus();
}

Status OutputFile::Sync() {
  // Pipes and character devices have nothing to sync and say EINVAL.
  if (::fsync(fd_) != 0 && errno != EINVAL && errno != EROFS) {
    return FileError(path_, "sync", errno);
  }
  return OkStatus();
}

Status OutputFile::Close() {
  const int fd = std::exchange(fd_, -1);
  if (fd >= 0 && ::close(fd) != 0) return FileError(path_, "close", errno);
  return OkStatus();
}

Status ReadPieces(const std::string& path, const std::function<void(ByteSpan)>& take) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError(path, "open", errno);
  struct stat info;
  if (::fstat(fd, &info) == 0 && (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode))) {
    ::close(fd);  // /dev/zero has no end
    return DataError(path + ": is a device, a file is needed here");
  }
  std::vector<uint8_t> piece(kPieceBytes);
  while (true) {
    const ssize_t n = ::read(fd, piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      ::close(fd);
      return FileError(path, "read", error);
    }
    if (n == 0) break;
    take(ByteSpan(piece.data(), static_cast<size_t>(n)));
  }
  ::close(fd);
  return OkStatus();
}

StatusOr<std::string> ReadTextFile(const std::string& path) {
  std::string text;
  TW_RETURN_IF_ERROR(ReadPieces(path, [&](ByteSpan piece) {
    text.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  }));
  return text;
}

StatusOr<FileDigest> DigestFile(const std::string& path) {
  FileDigest out;
  Hasher hasher;
  TW_RETURN_IF_ERROR(ReadPieces(path, [&](ByteSpan piece) {
    hasher.Add(piece);
    out.bytes += static_cast<int64_t>(piece.size());
  }));
  out.hash = hasher.digest();
  return out;
}

Status SyncPath(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError(path, "open", errno);
  // Some file systems refuse fsync of a folder with EINVAL; there the rename is as durable as it
  // gets.
  const int error = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (error != 0 && error != EINVAL && error != EROFS) return FileError(path, "sync", error);
  return OkStatus();
}

Status WriteTextFileAtomically(const std::string& path, std::string_view text) {
  const std::string temporary = path + ".tmp";
  Status status = [&]() -> Status {
    TW_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Open(temporary, OutputFile::Mode::kTruncate));
    TW_RETURN_IF_ERROR(file.Write(text));
    TW_RETURN_IF_ERROR(file.Sync());
    TW_RETURN_IF_ERROR(file.Close());
    if (std::rename(temporary.c_str(), path.c_str()) != 0) return FileError(path, "write", errno);
    return OkStatus();
  }();
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

}  // namespace tw
