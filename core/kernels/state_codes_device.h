#pragma once
// state_codes.h on a GPU: the same numbers and codes (of blocks whose scale is not finite the codes
// may differ). One launch a table.

#include "core/kernels/device.h"
#include "core/kernels/state_codes.h"

namespace tw::kernels::device {

struct CodesSegment {
  float* x = nullptr;
  uint8_t* codes = nullptr;
  float* scales = nullptr;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
void EncodeBlocks4(Code4 code, Table<CodesSegment> table, Stream stream);
void DecodeBlocks4(Code4 code, Table<CodesSegment> table, Stream stream);
void EncodeBlocks8(Code8 code, Table<CodesSegment> table, Stream stream);
void DecodeBlocks8(Code8 code, Table<CodesSegment> table, Stream stream);

// Moments in bf16, rounded stochastically: element i draws number first + i of the stream `key`,
// which is that of this step.
struct Bf16Segment {
  float* x = nullptr;
  uint16_t* narrow = nullptr;
  uint64_t key = 0;
  uint64_t first = 0;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
void RoundToBf16(Table<Bf16Segment> table, Stream stream);
void WidenBf16(Table<Bf16Segment> table, Stream stream);

}  // namespace tw::kernels::device
