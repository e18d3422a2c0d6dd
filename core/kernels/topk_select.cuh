#pragma once
// Pieces of an exact selection of the k largest magnitudes: digits and their histograms, the cut,
// what a warp counts and moves out.

#include "core/kernels/launch.cuh"
#include "core/kernels/topk.h"

namespace tw::kernels::device {

constexpr int kDigits = 3, kBins = 2048;

// Where the selection of a segment stands.
struct Cut {
  uint32_t magnitude;  // bits known so far; in the end those of the k-th largest
  uint32_t wanted;     // elements still to be found among those that share these bits
};
struct alignas(8) Counts {
  uint32_t above, ties;
};
__device__ inline int LaneOf() { return static_cast<int>(threadIdx.x % kWarp); }
__device__ inline int WarpOf() { return static_cast<int>(threadIdx.x / kWarp); }

__device__ inline uint32_t MagnitudeOf(IndexedValue entry) {
  return static_cast<uint32_t>(entry >> 32) & 0x7FFFFFFFu;
}
__device__ inline IndexedValue EntryOf(uint32_t bits, int64_t index) {
  return IndexedValue{bits} << 32 | static_cast<uint32_t>(index);
}

__device__ inline int ShiftOf(int digit) { return 20 - 10 * digit; }
// Whether the bits above a digit are those of the cut.
__device__ inline bool Shares(uint32_t magnitude, uint32_t cut, int digit) {
  return digit == 0 || (magnitude ^ cut) >> (ShiftOf(digit) + 10) == 0;
}
__device__ inline uint32_t DigitOf(uint32_t magnitude, int digit) {
  return magnitude >> ShiftOf(digit) & (digit == 0 ? 2047u : 1023u);
}

// Called by whole warps. Equal digits, of which zeros and ties have many, are one addition.
__device__ inline void CountDigit(uint32_t* bins, uint32_t magnitude, bool inside, uint32_t cut,
                                  int digit) {
  const bool counted = inside && Shares(magnitude, cut, digit);
  const uint32_t bin = DigitOf(magnitude, digit);
  const unsigned votes = __ballot_sync(kWholeWarp, counted);
  if (votes == 0) return;
  const int leader = __ffs(static_cast<int>(votes)) - 1;
  const uint32_t its = __shfl_sync(kWholeWarp, bin, leader);
  const bool same = counted && bin == its;
  const unsigned equal = __ballot_sync(kWholeWarp, same);
  if (LaneOf() == leader) {
    atomicAdd(bins + bin, static_cast<uint32_t>(__popc(equal)));
  } else if (counted && !same) {
    atomicAdd(bins + bin, 1u);
  }
}

// Over the threads before this one, and over all. `shared` has room for a number a warp.
template <class T>
struct Sums {
  T before, all;
};
template <int kBlock, class T>
__device__ inline Sums<T> SumsOfBlock(T own, T* shared) {
  T sum = own;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const T below = __shfl_up_sync(kWholeWarp, sum, distance);
    if (LaneOf() >= distance) sum += below;
  }
  __syncthreads();
  if (LaneOf() == kWarp - 1) shared[WarpOf()] = sum;
  __syncthreads();
  Sums<T> sums{sum - own, 0};
  for (int warp = 0; warp < kBlock / kWarp; ++warp) {
    if (warp < WarpOf()) sums.before += shared[warp];
    sums.all += shared[warp];
  }
  return sums;
}

// The bin in which the wanted-th of the counted elements lies, seen from the highest bin; called by
// a thread block, which all get it. `sums` is shared memory for a number a warp.
template <int kBlock>
__device__ inline Cut ChooseDigit(const uint32_t* bins, Cut cut, int digit, uint32_t* sums,
                                  Cut* chosen) {
  constexpr int kEach = kBins / kBlock;
  const int top = kBins - 1 - static_cast<int>(threadIdx.x) * kEach;
  uint32_t own = 0;
  for (int i = 0; i < kEach; ++i) own += bins[top - i];
  uint32_t before = SumsOfBlock<kBlock>(own, sums).before;
  if (before < cut.wanted && cut.wanted <= before + own) {
    int bin = top;
    for (; before + bins[bin] < cut.wanted; --bin) before += bins[bin];
    *chosen = {cut.magnitude | static_cast<uint32_t>(bin) << ShiftOf(digit), cut.wanted - before};
  }
  __syncthreads();
  return *chosen;
}

// visit(entry i, true) for begin <= i < end, in order: by whole warps, of which lanes behind the
// end bring false. Loads do not wait for visits.
template <class Entry, class Visit>
__device__ inline void VisitByWarp(int64_t begin, int64_t end, Entry entry, Visit visit) {
  constexpr int kAhead = 4;
  for (int64_t at = begin; at < end; at += kAhead * kWarp) {
    IndexedValue entries[kAhead];
    for (int a = 0; a < kAhead; ++a) {
      const int64_t i = at + a * kWarp + LaneOf();
      entries[a] = i < end ? entry(i) : 0;
    }
    for (int a = 0; a < kAhead; ++a) {
      const int64_t first = at + a * kWarp;
      if (first < end) visit(entries[a], first + LaneOf() < end);
    }
  }
}

// Of a warp's 32 elements in a row: which are above the cut, which at it.
struct Votes {
  uint32_t above, ties;
};
__device__ inline Votes VotesOf(uint32_t magnitude, bool inside, uint32_t cut) {
  return {__ballot_sync(kWholeWarp, inside && magnitude > cut),
          __ballot_sync(kWholeWarp, inside && magnitude == cut)};
}

template <class Entry>
__device__ inline Counts CountByWarp(int64_t begin, int64_t end, uint32_t cut, Entry entry) {
  Counts counts{0, 0};
  VisitByWarp(begin, end, entry, [&](IndexedValue e, bool inside) {
    const Votes votes = VotesOf(MagnitudeOf(e), inside, cut);
    counts.above += static_cast<uint32_t>(__popc(votes.above));
    counts.ties += static_cast<uint32_t>(__popc(votes.ties));
  });
  return counts;
}

// Moves the elements out that are above the cut, and of those at it as long as the segment has had
// fewer than cut.wanted. `before`: what came before in the segment.
template <class Entry>
__device__ inline void TakeByWarp(const TopKSegment& segment, int64_t begin, int64_t end, Cut cut,
                                  Counts before, Entry entry) {
  const uint32_t lower = (1u << LaneOf()) - 1;
  VisitByWarp(begin, end, entry, [&](IndexedValue e, bool inside) {
    const uint32_t magnitude = MagnitudeOf(e);
    const Votes votes = VotesOf(magnitude, inside, cut.magnitude);
    const uint32_t above = before.above + static_cast<uint32_t>(__popc(votes.above & lower));
    const uint32_t ties = before.ties + static_cast<uint32_t>(__popc(votes.ties & lower));
    const bool tie = magnitude == cut.magnitude && ties < cut.wanted;
    if (inside && (magnitude > cut.magnitude || tie)) {
      segment.out[above + (ties < cut.wanted ? ties : cut.wanted)] = e;
      segment.buffer[static_cast<uint32_t>(e)] = 0.0f;
    }
    before.above += static_cast<uint32_t>(__popc(votes.above));
    before.ties += static_cast<uint32_t>(__popc(votes.ties));
  });
}

}  // namespace tw::kernels::device
