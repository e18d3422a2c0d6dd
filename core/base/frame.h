#pragma once
// The frame of a gathered body. Byte layout, little-endian, 48 bytes:
//   0 u32 magic "TWF1" | 4 u16 version | 6 u16 wire id | 8 u32 parameter id | 12 u32 reserved 0 |
//   16 u64 step | 24 u64 numel 32 u64 body bytes  | 40 u64 XXH3-64 of bytes 0..39 and the body
// Decoders trust nothing: any mismatch is DataLoss.

#include "core/base/bytes.h"
#include "core/base/status.h"

namespace tw {

inline constexpr int64_t kFrameHeaderBytes = 48;

struct FrameHeader {
  uint16_t wire_id = 0;
  uint32_t parameter = 0;
  uint64_t step = 0;
  uint64_t numel = 0;
};

// Writes the header into the kFrameHeaderBytes in front of `body`.
void WriteFrameHeader(const FrameHeader& header, ByteSpan body, uint8_t* to);

struct Frame {
  FrameHeader header;
  ByteSpan body;
  int64_t total_bytes = 0;  // header and body
};
// Parses the frame at the start of `bytes` and verifies its checksum.
StatusOr<Frame> ParseFrame(ByteSpan bytes);
// DataLoss naming the first field in which `frame` is not what was expected.
Status CheckFrame(const Frame& frame, const FrameHeader& expected);

}  // namespace tw
