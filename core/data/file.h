#pragma once
// Whole files in memory, gzip unpacked. Every failure is a DataError of one line that starts with
// the path. Thread safe: no state.

#include <string>

#include "core/base/status.h"

namespace tw {

// The bytes of `path`; gzip data (recognised by its first two bytes, several members allowed) comes
// unpacked. Errors: missing or unreadable file, a folder, an empty file, damaged or cut gzip data,
// ".gz" without gzip data.
StatusOr<std::string> ReadDataFile(const std::string& path);

// Unpacks gzip bytes; `name` stands in front of the error.
StatusOr<std::string> Gunzip(const std::string& packed, const std::string& name);

// Puts `bytes` at `path` whole, making the folder. Several processes may do so at once: the last
// one wins.
Status WriteCacheFile(const std::string& path, const std::string& bytes);

bool FileExists(const std::string& path);
bool IsFolder(const std::string& path);

}  // namespace tw
