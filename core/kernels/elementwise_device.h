#pragma once
// elementwise.h on a GPU: the same bits. One launch a table (core/kernels/device.h).
//
// Segments do not overlap unless said otherwise. Bodies lie at any address.

#include "core/base/tensor_view.h"
#include "core/kernels/device.h"

namespace tw::kernels::device {

// a and what is added to it: fp32, bf16 or fp16 numbers, at any address.
struct AddSegment {
  float* a = nullptr;
  const void* b = nullptr;
  float s = 1.0f;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
// a[i] += s * value of b[i]; b of a segment may be a of no other.
void AddInPlace(Table<AddSegment> table, Stream stream);
void AddFromBf16(Table<AddSegment> table, Stream stream);
void AddFromHalf(Table<AddSegment> table, Stream stream);
// a[i] *= s
void Scale(Table<AddSegment> table, Stream stream);
// a[i] = the larger of a[i] and b[i]; b of fp32
void TakeLarger(Table<AddSegment> table, Stream stream);
// a[i] = 0 where b[i] != 0; b of fp32
void ZeroWhere(Table<AddSegment> table, Stream stream);

// a[i] += b[i], wrapping around.
struct AddBytesSegment {
  uint8_t* a = nullptr;
  const uint8_t* b = nullptr;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
void AddBytes(Table<AddBytesSegment> table, Stream stream);

// `to` of bf16 or fp16, `from` of either or fp32, at any address.
struct NarrowSumSegment {
  void* to = nullptr;
  const void* from = nullptr;
  float s = 1.0f;
  DType to_type = DType::kBF16;
  DType from_type = DType::kF32;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
// to[i] = to[i] + s * from[i], in fp32, rounded once (fp16 saturates).
void AddToNarrow(Table<NarrowSumSegment> table, Stream stream);

// A message (core/kernels/message_view.h) and where its body goes, at any address.
struct MessageSegment {
  float* buffer = nullptr;
  const float* addend = nullptr;  // may be null
  float scale = 1.0f;
  uint8_t* to = nullptr;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
// to: fp32 numbers buffer[i] + scale * addend[i]; buffer[i] = 0
void MoveOut(Table<MessageSegment> table, Stream stream);
// The cast codecs' fused pass: two bytes an element.
void CastResidualBf16(Table<MessageSegment> table, float pre, float post, Stream stream);
void CastResidualHalf(Table<MessageSegment> table, float pre, float post, Stream stream);

// Numbers of 16 bits lie at even addresses.
struct ConvertSegment {
  float* wide = nullptr;
  uint16_t* narrow = nullptr;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
void ConvertToBf16(Table<ConvertSegment> table, Stream stream);
void ConvertFromBf16(Table<ConvertSegment> table, Stream stream);
void ConvertToHalf(Table<ConvertSegment> table, Stream stream);  // saturates
void ConvertFromHalf(Table<ConvertSegment> table, Stream stream);

}  // namespace tw::kernels::device
