#pragma once
// Byte spans, and checked little-endian reads for decoders that trust nothing.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace tw {

using ByteSpan = std::span<const uint8_t>;
using MutableByteSpan = std::span<uint8_t>;

template <class T>
void StoreLE(uint8_t* to, T value) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memcpy(to, &value,
              sizeof(T));  // x86-64 and arm64 are little-endian; nothing else is supported
}
template <class T>
T LoadLE(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

// Walks a span; once a read does not fit, ok() stays false and reads return zeros.
class ByteReader {
 public:
  explicit ByteReader(ByteSpan bytes) : bytes_(bytes) {}
  template <class T>
  T Read() {
    if (bytes_.size() - at_ < sizeof(T)) {
      ok_ = false;
      at_ = bytes_.size();
      return T{};
    }
    T value = LoadLE<T>(bytes_.data() + at_);
    at_ += sizeof(T);
    return value;
  }
  ByteSpan Take(size_t n) {
    if (bytes_.size() - at_ < n) {
      ok_ = false;
      at_ = bytes_.size();
      return {};
    }
    ByteSpan out = bytes_.subspan(at_, n);
    at_ += n;
    return out;
  }
  size_t remaining() const { return bytes_.size() - at_; }
  bool ok() const { return ok_; }

 private:
  ByteSpan bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace tw
