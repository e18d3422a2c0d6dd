#pragma once
// What the kernels for GPUs (NAME.cu, declared in NAME_device.h) and their callers agree on.
//
// Multi-tensor: a launch goes over a table of segments, one a tensor or a piece of one, that lies
// in device memory. Segments are cut into tiles of kTile elements, numbered through the whole
// table, a thread block a tile; so one launch does a bucket however many tensors it has and however
// unequal they are. The host fills the segments, numbers the tiles (PlaceTiles) and copies them; a
// table whose addresses stay is copied once. What changes from step to step (keys of random
// streams, coefficients of optimizers) is read from device memory too: a captured CUDA graph can be
// replayed.
//
// Nothing here allocates, waits for the device or reads a result on the host. Functions only
// enqueue on the stream; scratch is the caller's. A call with no tiles launches nothing. What a
// launch could not do shows in TakeError. Thread safe on distinct streams.
//
// Bits: sources are compiled with -fmad=false, denormals kept, division and square root correctly
// rounded, so plain expressions give what the CPU's kernels give; element functions are the same
// source (TW_HOST_DEVICE). A header names what differs. NaNs are NaNs, with other payloads.

#include <cstdint>
#include <span>

namespace tw::kernels::device {

struct StreamHandle;           // never defined
using Stream = StreamHandle*;  // a cudaStream_t; null is the default stream

inline constexpr int64_t kTile = 4096;

// Segment has numel and first_tile.
template <class Segment>
struct Table {
  const Segment* segments = nullptr;  // in device memory
  int32_t count = 0;
  int64_t tiles = 0;  // what PlaceTiles returned
};

// Numbers the tiles of segments that are still in host memory; returns how many there are.
template <class Segment>
int64_t PlaceTiles(std::span<Segment> segments, int64_t tile = kTile) {
  int64_t tiles = 0;
  for (Segment& segment : segments) {
    segment.first_tile = tiles;
    tiles += (segment.numel + tile - 1) / tile;
  }
  return tiles;
}

// What went wrong in launches of this thread since the last call; null when nothing did. Does not
// wait: faults inside of kernels show once the stream is synchronised.
const char* TakeError();

}  // namespace tw::kernels::device
