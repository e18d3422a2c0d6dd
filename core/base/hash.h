#pragma once
// XXH3-64 (xxHash), the project's only checksum and fingerprint.

#include <string>
#include <string_view>

#include "core/base/bytes.h"

namespace tw {

uint64_t Hash64(ByteSpan bytes, uint64_t seed = 0);
inline uint64_t Hash64(std::string_view text, uint64_t seed = 0) {
  return Hash64(ByteSpan(reinterpret_cast<const uint8_t*>(text.data()), text.size()), seed);
}
// 16 lower-case hex digits.
std::string Hex64(uint64_t value);

// Feeds one piece after another; digest() is that of the concatenation.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  void Add(ByteSpan bytes);
  void Add(std::string_view text) {
    Add(ByteSpan(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
  }
  uint64_t digest() const;

 private:
  void* state_;
};

}  // namespace tw
