#pragma once
// Copies and fillings of many pieces of device memory in one launch, at any addresses.

#include "core/kernels/device.h"

namespace tw::kernels::device {

inline constexpr int64_t kCopyTile = 16384;  // bytes

// Pieces of a table do not overlap what others read or write.
struct CopySegment {
  uint8_t* to = nullptr;
  const uint8_t* from = nullptr;  // null: `pattern` again and again
  uint8_t pattern[16] = {};
  int64_t numel = 0;  // bytes
  int64_t first_tile = 0;
};
// In place of PlaceTiles.
inline int64_t PlaceCopies(std::span<CopySegment> segments) {
  return PlaceTiles(segments, kCopyTile);
}
void CopySegments(Table<CopySegment> table, Stream stream);

}  // namespace tw::kernels::device
