#pragma once
// topk.h on a GPU: exactly the CPU's elements, equal magnitudes by lower index, in ascending order.
//
// How. A sample of each segment gives an edge that slightly more than k magnitudes reach. One pass
// performs the pending additions and lists, tile by tile and in order, the elements that reach it.
// A radix selection on the 31 bits of their magnitudes (11 + 10 + 10 from the top: a histogram of a
// digit, the digit of the k-th largest, and so on) finds the cut; then what is above it and as many
// at it as are wanted are counted by tile, placed, and moved out. Where the sample has misled (a
// tile reaches the edge with too many elements for a list, or a segment with fewer than k) whole
// tiles stand in for lists: more time, the same result. Counts and choices stay on the device.
//
// Bytes an element at k = 1 %: 12 for the pass (4 without an addend), 0.7 for writing a list once
// and reading it five times, mostly in cache, 0.7 for what is moved out and the zeros left behind.
// Of a whole tile 20 in place of a list's.

#include <span>

#include "core/base/host_device.h"
#include "core/kernels/device.h"
#include "core/kernels/topk.h"

namespace tw::kernels::device {

struct TopKSegment {
  float* buffer = nullptr;
  const float* addend = nullptr;  // may be null
  float scale = 1.0f;
  uint32_t k = 0;               // <= numel; for TakeAbove the room of `out`
  IndexedValue* out = nullptr;  // [k]
  uint32_t* found = nullptr;    // TakeAbove: how many there are
  int64_t numel = 0;            // below 2^32
  int64_t first_tile = 0;
};

// Elements that the lists of a table have room for: any number gives the same results, this one
// what the sample may well need. 8 bytes each: 0.16 an element at k = 1 %, at most 0.7 and 512 a
// segment.
uint32_t TopKRoom(std::span<const TopKSegment> segments);
// Bytes of scratch for a table, aligned to 8. What is in front (uint64) is then how many elements
// asked for room in lists.
int64_t TopKScratchBytes(int32_t count, int64_t tiles, uint32_t room);

// The sample: of each of `numel / stride` stretches one element, at a place that no pattern of rows
// and columns follows. All of up to 2^13 elements, of more an eighth or 2^13, at most 2^15.
inline int64_t TW_HOST_DEVICE TopKSampleStride(int64_t numel) {
  const int64_t few = (numel + 8191) / 8192, many = (numel + 32767) / 32768;
  return few < 8 ? few : many < 8 ? 8 : many;
}
inline int64_t TW_HOST_DEVICE TopKSampledAt(int64_t stretch, int64_t stride) {
  uint32_t mix = static_cast<uint32_t>(stretch) * 0x9E3779B9u;
  mix = (mix ^ mix >> 15) * 0x85EBCA6Bu;
  mix ^= mix >> 13;
  return stretch * stride +
         static_cast<int64_t>(uint64_t{mix} * static_cast<uint64_t>(stride) >> 32);
}

// Performs the pending additions and moves the k largest of each segment out; the buffers then hold
// the residuals. Eleven launches however many segments.
void TakeTopK(Table<TopKSegment> table, uint32_t room, void* scratch, Stream stream);
// The same in one launch and without scratch, for segments of at most kTile elements: the chunks of
// chunked_topk, a segment each.
void TakeTopKShort(Table<TopKSegment> table, Stream stream);
// Moves every element with |x| > threshold (>= 0) out and leaves the count at `found`; when that is
// more than k nothing is moved but the addition is done. Four launches.
void TakeAbove(Table<TopKSegment> table, float threshold, uint32_t room, void* scratch,
               Stream stream);

}  // namespace tw::kernels::device
