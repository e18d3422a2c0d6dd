#include "launch/sinks/tfevents.h"

#include <array>
#include <cstring>

namespace tw {
namespace {

enum WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0x82f63b78u : 0u);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = MakeCrcTable();

template <class T>
void AppendLE(std::string* out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out->append(bytes, sizeof(T));
}

void AppendVarint(std::string* out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

void AppendTag(std::string* out, int field, WireType type) {
  AppendVarint(out, static_cast<uint64_t>(field) << 3 | type);
}

void AppendBytes(std::string* out, int field, std::string_view bytes) {
  AppendTag(out, field, kBytes);
  AppendVarint(out, bytes.size());
  out->append(bytes);
}

std::string EventAt(double wall_time_s, int64_t step) {
  std::string event;
  AppendTag(&event, 1, kFixed64);
  AppendLE(&event, wall_time_s);
  if (step != 0) {
    AppendTag(&event, 2, kVarint);
    AppendVarint(&event, static_cast<uint64_t>(step));
  }
  return event;
}

uint32_t Masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

}  // namespace

uint32_t Crc32c(std::string_view bytes) {
  uint32_t crc = 0xffffffffu;
  for (char c : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<uint8_t>(c)) & 0xff];
  return ~crc;
}

std::string FramedRecord(std::string_view bytes) {
  std::string out;
  AppendLE<uint64_t>(&out, bytes.size());
  AppendLE<uint32_t>(&out, Masked(Crc32c(out)));
  out.append(bytes);
  AppendLE<uint32_t>(&out, Masked(Crc32c(bytes)));
  return out;
}

std::string VersionEvent(double wall_time_s) {
  std::string event = EventAt(wall_time_s, 0);
  AppendBytes(&event, 3, "brain.Event:2");
  return event;
}

std::string SessionStartEvent(double wall_time_s, int64_t step) {
  std::string event = EventAt(wall_time_s, step);
  std::string log;
  AppendTag(&log, 1, kVarint);
  AppendVarint(&log, 1);
  AppendBytes(&event, 7, log);
  return event;
}

std::string ScalarsEvent(double wall_time_s, int64_t step,
                         const std::vector<std::pair<std::string, float>>& scalars) {
  std::string summary;
  for (const auto& [tag, number] : scalars) {
    std::string value;
    AppendBytes(&value, 1, tag);
    AppendTag(&value, 2, kFixed32);
    AppendLE(&value, number);
    AppendBytes(&summary, 1, value);
  }
  std::string event = EventAt(wall_time_s, step);
  AppendBytes(&event, 5, summary);
  return event;
}

}  // namespace tw
