#include "core/base/frame.h"

#include <cstring>

#include "core/base/hash.h"

namespace tw {
namespace {

constexpr uint32_t kMagic = 0x31465754;  // "TWF1"
constexpr uint16_t kVersion = 1;

uint64_t Checksum(const uint8_t* header, ByteSpan body) {
  return Hash64(body, Hash64(ByteSpan(header, 40)));
}

}  // namespace

void WriteFrameHeader(const FrameHeader& header, ByteSpan body, uint8_t* to) {
  StoreLE(to, kMagic);
  StoreLE(to + 4, kVersion);
  StoreLE(to + 6, header.wire_id);
  StoreLE(to + 8, header.parameter);
  StoreLE(to + 12, uint32_t{0});
  StoreLE(to + 16, header.step);
  StoreLE(to + 24, header.numel);
  StoreLE(to + 32, static_cast<uint64_t>(body.size()));
  StoreLE(to + 40, Checksum(to, body));
}

StatusOr<Frame> ParseFrame(ByteSpan bytes) {
  if (bytes.size() < static_cast<size_t>(kFrameHeaderBytes)) {
    return DataLoss("frame: " + std::to_string(bytes.size()) + " bytes, a header has 48");
  }
  ByteReader reader(bytes);
  if (reader.Read<uint32_t>() != kMagic) return DataLoss("frame: wrong magic number");
  const uint16_t version = reader.Read<uint16_t>();
  if (version != kVersion) {
    return DataLoss("frame: version " + std::to_string(version) + ", this program speaks 1");
  }
  Frame frame;
  frame.header.wire_id = reader.Read<uint16_t>();
  frame.header.parameter = reader.Read<uint32_t>();
  if (reader.Read<uint32_t>() != 0) return DataLoss("frame: reserved bytes are not zero");
  frame.header.step = reader.Read<uint64_t>();
  frame.header.numel = reader.Read<uint64_t>();
  const uint64_t body_bytes = reader.Read<uint64_t>();
  const uint64_t checksum = reader.Read<uint64_t>();
  if (body_bytes > reader.remaining()) {
    return DataLoss("frame: body of " + std::to_string(body_bytes) + " bytes, " +
                    std::to_string(reader.remaining()) + " left");
  }
  frame.body = reader.Take(static_cast<size_t>(body_bytes));
  if (checksum != Checksum(bytes.data(), frame.body)) return DataLoss("frame: checksum mismatch");
  frame.total_bytes = kFrameHeaderBytes + static_cast<int64_t>(body_bytes);
  return frame;
}

Status CheckFrame(const Frame& frame, const FrameHeader& expected) {
  const auto differs = [](const char* what, uint64_t found, uint64_t wanted) {
    return DataLoss(std::string("frame: ") + what + " " + std::to_string(found) + ", expected " +
                    std::to_string(wanted));
  };
  if (frame.header.wire_id != expected.wire_id)
    return differs("wire id", frame.header.wire_id, expected.wire_id);
  if (frame.header.parameter != expected.parameter)
    return differs("parameter", frame.header.parameter, expected.parameter);
  if (frame.header.step != expected.step) return differs("step", frame.header.step, expected.step);
  if (frame.header.numel != expected.numel)
    return differs("numel", frame.header.numel, expected.numel);
  return OkStatus();
}

}  // namespace tw
