#pragma once
// signs.h on a GPU. The sums over a message do not leave the device: they become the means that a
// body begins with, read from there by what subtracts and adds. Sums have the shape of
// reduce_device.h: a mean may be the next float to the CPU's (about once in 10^8). Bodies lie at
// any address.

#include "core/kernels/device.h"
#include "core/kernels/signs.h"

namespace tw::kernels::device {

struct SignSegment {
  float* buffer = nullptr;        // message; what AddBySign adds to
  const float* addend = nullptr;  // may be null
  float scale = 1.0f;             // of the addend; of what AddBySign adds
  uint8_t* means = nullptr;
  uint8_t* bits = nullptr;  // SignBytes(numel)
  int64_t numel = 0;
  int64_t first_tile = 0;
};

// Bytes of scratch that PackSigns needs, aligned for doubles.
constexpr int64_t SignScratch(int64_t tiles) { return tiles * int64_t{sizeof(SignSums)}; }

// Performs the pending addition, writes the bits and the means. Two launches.
void PackSigns(Table<SignSegment> table, SignMeans means, void* scratch, Stream stream);
// buffer[i] -= buffer[i] < 0 ? minus : plus, minus = -plus where there is one mean.
void SubtractBySign(Table<SignSegment> table, SignMeans means, Stream stream);
// buffer[i] += scale * (bit i ? minus : plus)
void AddBySign(Table<SignSegment> table, SignMeans means, Stream stream);

}  // namespace tw::kernels::device
