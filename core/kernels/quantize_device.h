#pragma once
// quantize.h on a GPU: the same bodies and residuals.
//
// Blocks of up to kWarpBlock elements take one launch, a warp or a part of one a block, and the
// CPU's bits with every rule. Larger ones, and one scale for a whole message, take three: pieces,
// scales, codes; then ScaleRule::kMeanAbs and kL2Norm add in the order of reduce_device.h, by tiles
// of kQuantizeTile, so that a scale may be the next float to the CPU's (about once in 10^8 scales).
// Bodies lie at any address.

#include "core/base/host_device.h"
#include "core/kernels/device.h"
#include "core/kernels/quantize.h"

namespace tw::kernels::device {

inline constexpr int64_t kWarpBlock = 2048;
inline constexpr int64_t kQuantizeTile = 5120;  // whole pieces, whole bytes of codes of any width

// A message and its body. The stream's key is that of this step.
struct QuantizeSegment {
  float* buffer = nullptr;
  const float* addend = nullptr;  // may be null
  float scale = 1.0f;
  uint8_t* body = nullptr;  // spec.BodyBytes(numel)
  QuantizeStream stream;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
struct DequantizeSegment {
  float* out = nullptr;
  float scale = 1.0f;
  const uint8_t* body = nullptr;
  int64_t numel = 0;
  int64_t first_tile = 0;
};

// The elements of a block, or of the one block of a message.
TW_HOST_DEVICE inline int64_t BlockElements(const QuantizeSpec& spec, int64_t numel) {
  return spec.block == 0 ? numel : spec.block;
}
inline bool AWarpABlock(const QuantizeSpec& spec) {
  return spec.block > 0 && spec.block <= kWarpBlock;
}

// Blocks that a thread block does, where it does several: some 4096 elements, in whole rounds of
// its 8 warps, each of which has a block, or several that together have no more than 256 elements.
inline int64_t BlocksPerTile(const QuantizeSpec& spec) {
  constexpr int64_t kWarps = 8, kAtOnce = 256;
  int64_t round = kWarps;
  while (round * spec.block * 2 <= kWarps * kAtOnce) round *= 2;
  const int64_t rounds = kTile / (round * spec.block);
  return rounds > 1 ? rounds * round : round;
}
// In place of PlaceTiles: all segments of a launch are quantized by one `spec`.
template <class Segment>
int64_t PlaceQuantized(std::span<Segment> segments, const QuantizeSpec& spec) {
  if (AWarpABlock(spec)) return PlaceTiles(segments, BlocksPerTile(spec) * spec.block);
  int64_t tiles = 0;
  for (Segment& segment : segments) {
    segment.first_tile = tiles;
    if (segment.numel == 0) continue;
    const int64_t block = BlockElements(spec, segment.numel);
    const auto tiles_of = [](int64_t n) { return (n + kQuantizeTile - 1) / kQuantizeTile; };
    tiles += segment.numel / block * tiles_of(block) + tiles_of(segment.numel % block);
  }
  return tiles;
}
// Doubles of scratch that Quantize needs.
inline int64_t QuantizeScratch(int64_t tiles, const QuantizeSpec& spec) {
  return AWarpABlock(spec) ? 0 : tiles;
}

// For finite messages.
void Quantize(Table<QuantizeSegment> table, const QuantizeSpec& spec, double* scratch,
              Stream stream);
// REQUIRES: CheckQuantized passed.
void DequantizeAdd(Table<DequantizeSegment> table, const QuantizeSpec& spec, Stream stream);

}  // namespace tw::kernels::device
