#include <cmath>
#include <limits>

#include "core/kernels/launch.cuh"
#include "core/kernels/topk_device.h"
#include "core/kernels/value_grid.h"

namespace tw::kernels::device {
namespace {

constexpr int kDigits = 3, kBins = 2048;
constexpr int kWarpShare = kTile / kWarps;  // elements of a tile that a warp looks at, in a row

// Where the selection of a segment stands.
struct Cut {
  uint32_t magnitude;  // bits known so far; in the end those of the k-th largest
  uint32_t wanted;     // elements still to be found among those that share these bits
};
struct Counts {
  uint32_t above, ties;
};
struct Selection {
  Cut cut;
  uint32_t bins[kBins];
};

// scratch: [count] selections, [tiles] counts
struct Scratch {
  Selection* selections;
  Counts* tiles;
};
Scratch ScratchOf(const Table<TopKSegment>& table, void* scratch) {
  auto* selections = static_cast<Selection*>(scratch);
  return {selections, reinterpret_cast<Counts*>(selections + table.count)};
}

__device__ uint32_t Magnitude(float x) { return __float_as_uint(x) & 0x7FFFFFFFu; }

__device__ int ShiftOf(int digit) { return 20 - 10 * digit; }
// Whether the bits above a digit are those of the cut.
__device__ bool Shares(uint32_t magnitude, uint32_t cut, int digit) {
  return digit == 0 || (magnitude ^ cut) >> (ShiftOf(digit) + 10) == 0;
}
__device__ uint32_t DigitOf(uint32_t magnitude, int digit) {
  return magnitude >> ShiftOf(digit) & (digit == 0 ? 2047u : 1023u);
}

// The bin in which the wanted-th of the counted elements lies, seen from the highest bin; called by
// a thread block, which all get it. `sums` is shared memory for kThreads numbers.
__device__ Cut ChooseDigit(const uint32_t* bins, Cut cut, int digit, uint32_t* sums, Cut* chosen) {
  constexpr int kEach = kBins / kThreads;
  const int thread = static_cast<int>(threadIdx.x);
  const int top = kBins - 1 - thread * kEach;
  uint32_t own = 0;
  for (int i = 0; i < kEach; ++i) own += bins[top - i];
  sums[thread] = own;
  __syncthreads();
  for (int distance = 1; distance < kThreads; distance *= 2) {
    const uint32_t below = thread >= distance ? sums[thread - distance] : 0;
    __syncthreads();
    sums[thread] += below;
    __syncthreads();
  }
  uint32_t before = sums[thread] - own;
  if (before < cut.wanted && cut.wanted <= before + own) {
    int bin = top;
    for (; before + bins[bin] < cut.wanted; --bin) before += bins[bin];
    *chosen = {cut.magnitude | static_cast<uint32_t>(bin) << ShiftOf(digit), cut.wanted - before};
  }
  __syncthreads();
  return *chosen;
}

// Of a warp's 32 elements in a row: which are above the cut, which at it.
struct Votes {
  uint32_t above, ties;
};
__device__ Votes VotesOf(uint32_t magnitude, bool inside, uint32_t cut) {
  return {__ballot_sync(kWholeWarp, inside && magnitude > cut),
          __ballot_sync(kWholeWarp, inside && magnitude == cut)};
}

// Elements [begin, end) of a tile that a warp looks at.
__device__ TileRange ShareOf(const TileRange& tile) {
  const int64_t begin = tile.begin + static_cast<int64_t>(threadIdx.x / kWarp) * kWarpShare;
  return {begin, begin + kWarpShare < tile.end ? begin + kWarpShare : tile.end};
}

// `bits_of(i)` are the bits of element i.
template <class BitsOf>
__device__ Counts CountShare(const TileRange& share, uint32_t cut, BitsOf bits_of) {
  Counts counts{0, 0};
  for (int64_t at = share.begin; at < share.end; at += kWarp) {
    const int64_t i = at + threadIdx.x % kWarp;
    const bool inside = i < share.end;
    const Votes votes = VotesOf(inside ? bits_of(i) & 0x7FFFFFFFu : 0, inside, cut);
    counts.above += static_cast<uint32_t>(__popc(votes.above));
    counts.ties += static_cast<uint32_t>(__popc(votes.ties));
  }
  return counts;
}

// Adds up what the warps before this one have counted. `shared` has room for kWarps.
__device__ Counts BeforeWarp(Counts counts, Counts before, Counts* shared) {
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  if (threadIdx.x % kWarp == 0) shared[warp] = counts;
  __syncthreads();
  for (int w = 0; w < warp; ++w) {
    before.above += shared[w].above;
    before.ties += shared[w].ties;
  }
  return before;
}

// Moves the elements of a warp's share out that are above the cut, and of those at it as long as
// the segment has had fewer than cut.wanted. `before`: what came before in the segment.
template <class BitsOf>
__device__ void TakeShare(const TopKSegment& segment, const TileRange& share, const Cut& cut,
                          Counts before, BitsOf bits_of) {
  const unsigned lane = threadIdx.x % kWarp;
  const uint32_t lower = (1u << lane) - 1;
  for (int64_t at = share.begin; at < share.end; at += kWarp) {
    const int64_t i = at + lane;
    const bool inside = i < share.end;
    const uint32_t bits = inside ? bits_of(i) : 0, magnitude = bits & 0x7FFFFFFFu;
    const Votes votes = VotesOf(magnitude, inside, cut.magnitude);
    const uint32_t above = before.above + static_cast<uint32_t>(__popc(votes.above & lower));
    const uint32_t ties = before.ties + static_cast<uint32_t>(__popc(votes.ties & lower));
    const bool tie = magnitude == cut.magnitude && ties < cut.wanted;
    if (inside && (magnitude > cut.magnitude || tie)) {
      const uint32_t place = above + (ties < cut.wanted ? ties : cut.wanted);
      segment.out[place] = IndexedValue{bits} << 32 | static_cast<uint32_t>(i);
      segment.buffer[i] = 0.0f;
    }
    before.above += static_cast<uint32_t>(__popc(votes.above));
    before.ties += static_cast<uint32_t>(__popc(votes.ties));
  }
}

// The histogram of a digit over elements that share the bits above; on the first one the additions.
__global__ void __launch_bounds__(kThreads)
    CountDigits(const TopKSegment* segments, int count, Selection* selections, int digit) {
  __shared__ uint32_t bins[kBins];
  const int at = SegmentOf(segments, count, blockIdx.x);
  const TopKSegment segment = segments[at];
  const TileRange tile = RangeOf(segment, blockIdx.x);
  const uint32_t cut = selections[at].cut.magnitude;
  for (int bin = threadIdx.x; bin < kBins; bin += kThreads) bins[bin] = 0;
  __syncthreads();
  for (int64_t i = tile.begin + threadIdx.x; i < tile.end; i += kThreads) {
    float x = segment.buffer[i];
    if (digit == 0 && segment.addend) {
      x = x + segment.scale * segment.addend[i];
      segment.buffer[i] = x;
    }
    const uint32_t magnitude = Magnitude(x);
    if (Shares(magnitude, cut, digit)) atomicAdd(bins + DigitOf(magnitude, digit), 1u);
  }
  __syncthreads();
  for (int bin = threadIdx.x; bin < kBins; bin += kThreads) {
    if (bins[bin]) atomicAdd(selections[at].bins + bin, bins[bin]);
  }
}

// A thread block a segment; leaves the histogram empty.
__global__ void __launch_bounds__(kThreads)
    ChooseDigits(const TopKSegment* segments, Selection* selections, int digit) {
  __shared__ uint32_t sums[kThreads];
  __shared__ Cut chosen;
  const TopKSegment segment = segments[blockIdx.x];
  Selection& selection = selections[blockIdx.x];
  if (segment.k == 0) {  // no magnitude is above this one, and none at it is wanted
    if (threadIdx.x == 0) selection.cut = {0x7FFFFFFFu, 0};
    return;
  }
  Cut cut = selection.cut;
  if (digit == 0) cut = {0, segment.k};
  cut = ChooseDigit(selection.bins, cut, digit, sums, &chosen);
  if (threadIdx.x == 0) selection.cut = cut;
  for (int bin = threadIdx.x; bin < kBins; bin += kThreads) selection.bins[bin] = 0;
}

__global__ void __launch_bounds__(kThreads)
    CountTaken(const TopKSegment* segments, int count, const Selection* selections, Counts* tiles) {
  __shared__ Counts shared[kWarps];
  const int at = SegmentOf(segments, count, blockIdx.x);
  const TopKSegment segment = segments[at];
  const TileRange share = ShareOf(RangeOf(segment, blockIdx.x));
  const Counts own = CountShare(share, selections[at].cut.magnitude,
                                [&](int64_t i) { return __float_as_uint(segment.buffer[i]); });
  const Counts before = BeforeWarp(own, {0, 0}, shared);
  if (threadIdx.x == kThreads - kWarp) {
    tiles[blockIdx.x] = {before.above + own.above, before.ties + own.ties};
  }
}

// Makes the counts of a segment's tiles those of all tiles before; a thread block a segment.
__global__ void __launch_bounds__(kThreads)
    PlaceTaken(const TopKSegment* segments, Counts* tiles, bool above_only) {
  __shared__ Counts sums[kThreads];
  const TopKSegment segment = segments[blockIdx.x];
  const int64_t count = (segment.numel + kTile - 1) / kTile;
  const int thread = static_cast<int>(threadIdx.x);
  Counts before{0, 0};
  for (int64_t first = 0; first < count; first += kThreads) {
    const int64_t at = segment.first_tile + first + thread;
    const bool inside = first + thread < count;
    const Counts own = inside ? tiles[at] : Counts{0, 0};
    sums[thread] = own;
    __syncthreads();
    for (int distance = 1; distance < kThreads; distance *= 2) {
      const Counts below = thread >= distance ? sums[thread - distance] : Counts{0, 0};
      __syncthreads();
      sums[thread].above += below.above;
      sums[thread].ties += below.ties;
      __syncthreads();
    }
    if (inside) {
      tiles[at] = {before.above + sums[thread].above - own.above,
                   before.ties + sums[thread].ties - own.ties};
    }
    before.above += sums[kThreads - 1].above;
    before.ties += sums[kThreads - 1].ties;
    __syncthreads();
  }
  if (above_only && thread == 0) *segment.found = before.above;
}

__global__ void __launch_bounds__(kThreads)
    TakeTiles(const TopKSegment* segments, int count, const Selection* selections,
              const Counts* tiles, bool above_only) {
  __shared__ Counts shared[kWarps];
  const int at = SegmentOf(segments, count, blockIdx.x);
  const TopKSegment segment = segments[at];
  if (above_only && *segment.found > segment.k) return;
  const Cut cut = selections[at].cut;
  const TileRange share = ShareOf(RangeOf(segment, blockIdx.x));
  const auto bits_of = [&](int64_t i) { return __float_as_uint(segment.buffer[i]); };
  const Counts own = CountShare(share, cut.magnitude, bits_of);
  const Counts before = BeforeWarp(own, tiles[blockIdx.x], shared);
  TakeShare(segment, share, cut, before, bits_of);
}

// All of a segment of one tile, whose bits lie in shared memory.
__global__ void __launch_bounds__(kThreads)
    TakeShortSegments(const TopKSegment* segments, int count) {
  __shared__ uint32_t bits[kTile];
  __shared__ uint32_t bins[kBins];
  __shared__ uint32_t sums[kThreads];
  __shared__ Counts shared[kWarps];
  __shared__ Cut chosen;
  const TopKSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const TileRange tile = RangeOf(segment, blockIdx.x);
  for (int64_t i = threadIdx.x; i < tile.end; i += kThreads) {
    float x = segment.buffer[i];
    if (segment.addend) {
      x = x + segment.scale * segment.addend[i];
      segment.buffer[i] = x;
    }
    bits[i] = __float_as_uint(x);
  }
  if (segment.k == 0) return;
  Cut cut{0, segment.k};
  for (int digit = 0; digit < kDigits; ++digit) {
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) bins[bin] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < tile.end; i += kThreads) {
      const uint32_t magnitude = bits[i] & 0x7FFFFFFFu;
      if (Shares(magnitude, cut.magnitude, digit)) {
        atomicAdd(bins + DigitOf(magnitude, digit), 1u);
      }
    }
    __syncthreads();
    cut = ChooseDigit(bins, cut, digit, sums, &chosen);
    __syncthreads();
  }
  const TileRange share = ShareOf(tile);
  const auto bits_of = [&](int64_t i) { return bits[i]; };
  const Counts before = BeforeWarp(CountShare(share, cut.magnitude, bits_of), {0, 0}, shared);
  TakeShare(segment, share, cut, before, bits_of);
}

// The additions, and a cut that everything above a threshold is above.
__global__ void __launch_bounds__(kThreads)
    AddAndCut(const TopKSegment* segments, int count, Selection* selections, uint32_t bound) {
  const int at = SegmentOf(segments, count, blockIdx.x);
  const TopKSegment segment = segments[at];
  const TileRange tile = RangeOf(segment, blockIdx.x);
  if (threadIdx.x == 0 && blockIdx.x == segment.first_tile) selections[at].cut = {bound, 0};
  if (segment.addend == nullptr) return;
  for (int64_t i = tile.begin + threadIdx.x; i < tile.end; i += kThreads) {
    segment.buffer[i] = segment.buffer[i] + segment.scale * segment.addend[i];
  }
}

// Numbers of any widths, one behind the other from the start of a byte.
struct BitWriter {
  uint8_t* to;
  uint64_t pending = 0;
  int fill = 0;
  __device__ void Put(uint32_t number, int bits) {
    pending |= uint64_t{number} << fill;
    for (fill += bits; fill >= 8; fill -= 8, pending >>= 8) *to++ = static_cast<uint8_t>(pending);
  }
  __device__ void Finish() {
    if (fill > 0) *to = static_cast<uint8_t>(pending);
  }
};
// Number j of those that a BitWriter wrote with `bits` bits each.
__device__ uint32_t NumberAt(const uint8_t* packed, int64_t j, int bits) {
  const int64_t bit = j * bits;
  const int shift = static_cast<int>(bit % 8);
  uint64_t word = 0;
  for (int i = 0; i * 8 < shift + bits; ++i) word |= uint64_t{packed[bit / 8 + i]} << (8 * i);
  return static_cast<uint32_t>(word >> shift & ((uint64_t{1} << bits) - 1));
}

// So many numbers fill whole bytes, whatever their width.
constexpr int kWholeBytes = 8;

__global__ void __launch_bounds__(kThreads) PackTiles(const IndexSegment* segments, int count) {
  const IndexSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const TileRange tile = RangeOf(segment, blockIdx.x);
  for (int64_t at = tile.begin + int64_t{threadIdx.x} * kWholeBytes; at < tile.end;
       at += kThreads * kWholeBytes) {
    const int64_t end = at + kWholeBytes < tile.end ? at + kWholeBytes : tile.end;
    BitWriter indices{segment.packed + at / kWholeBytes * segment.bits};
    for (int64_t j = at; j < end; ++j) {
      const IndexedValue entry = segment.list[j];
      StoreAny(segment.values + j * 4, static_cast<uint32_t>(entry >> 32));
      indices.Put(static_cast<uint32_t>(entry), segment.bits);
    }
    indices.Finish();
  }
}

struct AddEntry {
  __device__ void operator()(const IndexSegment& segment, int64_t j) const {
    const int64_t index = NumberAt(segment.packed, j, segment.bits);
    if (index >= segment.out_numel) return;
    segment.out[index] += segment.scale * LoadAny<float>(segment.values + j * 4);
  }
};

// A thread block a group: those of chunked_topk are of some forty entries.
constexpr int kGridThreads = 64, kGridWarps = kGridThreads / kWarp;

// Entries [begin, end) and their values.
struct Group {
  int64_t begin, end;
  uint8_t* values;
};
__device__ Group GroupOf(const GridSegment& s, int64_t tile) {
  const int64_t group = tile - s.first_tile, begin = group * s.group, end = begin + s.group;
  const int64_t bytes = ValueGrid::kBytes + (s.group * s.value_bits + 7) / 8;
  return {begin, end < s.numel ? end : s.numel, s.values + group * bytes};
}
__device__ float ValueOf(IndexedValue e) { return __uint_as_float(static_cast<uint32_t>(e >> 32)); }

__global__ void __launch_bounds__(kGridThreads) PackGrids(const GridSegment* segments, int count) {
  __shared__ float lows[kGridWarps], highs[kGridWarps];
  const GridSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const Group group = GroupOf(s, blockIdx.x);
  float low = std::numeric_limits<float>::max(), high = 0;
  for (int64_t j = group.begin + threadIdx.x; j < group.end; j += kGridThreads) {
    const float m = std::fabs(ValueOf(s.list[j]));
    low = m < low ? m : low;
    high = m > high ? m : high;
  }
  low = AcrossWarp(low, [](float a, float b) { return a < b ? a : b; });
  high = MaxAcrossWarp(high);
  if (threadIdx.x % kWarp == 0) {
    lows[threadIdx.x / kWarp] = low;
    highs[threadIdx.x / kWarp] = high;
  }
  __syncthreads();
  for (int warp = 0; warp < kGridWarps; ++warp) {
    low = lows[warp] < low ? lows[warp] : low;
    high = highs[warp] > high ? highs[warp] : high;
  }
  const ValueGrid grid(low, high, ValueGrid::Top(s.value_bits));
  if (threadIdx.x == 0) {
    StoreAny(group.values, low);
    StoreAny(group.values + sizeof(float), high);
  }
  for (int64_t at = group.begin + int64_t{threadIdx.x} * kWholeBytes; at < group.end;
       at += kGridThreads * kWholeBytes) {
    const int64_t end = at + kWholeBytes < group.end ? at + kWholeBytes : group.end;
    BitWriter indices{s.packed + at / kWholeBytes * s.index_bits};
    BitWriter codes{group.values + ValueGrid::kBytes +
                    (at - group.begin) / kWholeBytes * s.value_bits};
    for (int64_t j = at; j < end; ++j) {
      const uint32_t index = static_cast<uint32_t>(s.list[j]);
      const float x = ValueOf(s.list[j]);
      const uint32_t code = grid.Code(x);
      indices.Put(index, s.index_bits);
      codes.Put(code, s.value_bits);
      s.buffer[index] = x - grid.Value(code);
    }
    indices.Finish();
    codes.Finish();
  }
}

__global__ void __launch_bounds__(kGridThreads) AddGrids(const GridSegment* segments, int count) {
  const GridSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const Group group = GroupOf(s, blockIdx.x);
  const ValueGrid grid(LoadAny<float>(group.values), LoadAny<float>(group.values + sizeof(float)),
                       ValueGrid::Top(s.value_bits));
  const uint8_t* codes = group.values + ValueGrid::kBytes;
  for (int64_t j = group.begin + threadIdx.x; j < group.end; j += kGridThreads) {
    const int64_t index = NumberAt(s.packed, j, s.index_bits);
    if (index >= s.out_numel) continue;
    s.out[index] += s.scale * grid.Value(NumberAt(codes, j - group.begin, s.value_bits));
  }
}

void Take(const Table<TopKSegment>& table, const Scratch& scratch, bool above_only, Stream stream) {
  Launch(CountTaken, table.tiles, kThreads, stream, table.segments, table.count, scratch.selections,
         scratch.tiles);
  Launch(PlaceTaken, table.count, kThreads, stream, table.segments, scratch.tiles, above_only);
  Launch(TakeTiles, table.tiles, kThreads, stream, table.segments, table.count, scratch.selections,
         scratch.tiles, above_only);
}

}  // namespace

int64_t TopKScratchBytes(int32_t count, int64_t tiles) {
  return count * int64_t{sizeof(Selection)} + tiles * int64_t{sizeof(Counts)};
}

void TakeTopK(Table<TopKSegment> table, void* scratch, Stream stream) {
  if (table.tiles == 0) return;
  const Scratch parts = ScratchOf(table, scratch);
  cudaMemsetAsync(parts.selections, 0, static_cast<size_t>(table.count) * sizeof(Selection),
                  CudaStream(stream));
  for (int digit = 0; digit < kDigits; ++digit) {
    Launch(CountDigits, table.tiles, kThreads, stream, table.segments, table.count,
           parts.selections, digit);
    Launch(ChooseDigits, table.count, kThreads, stream, table.segments, parts.selections, digit);
  }
  Take(table, parts, /*above_only=*/false, stream);
}

void TakeTopKShort(Table<TopKSegment> table, Stream stream) {
  Launch(TakeShortSegments, table.tiles, kThreads, stream, table.segments, table.count);
}

void TakeAbove(Table<TopKSegment> table, float threshold, void* scratch, Stream stream) {
  const Scratch parts = ScratchOf(table, scratch);
  const uint32_t bound = std::bit_cast<uint32_t>(threshold) & 0x7FFFFFFFu;
  Launch(AddAndCut, table.tiles, kThreads, stream, table.segments, table.count, parts.selections,
         bound);
  Take(table, parts, /*above_only=*/true, stream);
}

void PackIndices(Table<IndexSegment> table, Stream stream) {
  Launch(PackTiles, table.tiles, kThreads, stream, table.segments, table.count);
}
void AddAtIndices(Table<IndexSegment> table, Stream stream) {
  LaunchForEach(table, stream, AddEntry());
}

int64_t PlaceGrids(std::span<GridSegment> segments) {
  int64_t tiles = 0;
  for (GridSegment& segment : segments) {
    segment.first_tile = tiles;
    if (segment.numel > 0) tiles += (segment.numel + segment.group - 1) / segment.group;
  }
  return tiles;
}
void PackEntriesOnGrids(Table<GridSegment> table, Stream stream) {
  Launch(PackGrids, table.tiles, kGridThreads, stream, table.segments, table.count);
}
void AddAtIndicesFromGrids(Table<GridSegment> table, Stream stream) {
  Launch(AddGrids, table.tiles, kGridThreads, stream, table.segments, table.count);
}

}  // namespace tw::kernels::device
