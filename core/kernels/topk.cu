#include "core/kernels/topk_device.h"

#include <cmath>

#include "core/kernels/topk_select.cuh"
#include "core/kernels/vectors.cuh"

namespace tw::kernels::device {
namespace {

constexpr int kWarpShare = kTile / kWarps;  // elements of a tile that a warp looks at, in a row
constexpr uint32_t kNone = 0x80000000u;     // an edge that no magnitude reaches

// Of a tile, those that reach the edge: entries [first, first + count), indices ascending.
struct alignas(8) List {
  uint32_t first, count;
};
constexpr uint32_t kWholeTile = ~0u;         // as a count: there is no list
constexpr uint32_t kMostListed = kTile / 4;  // from here on the tile itself is read as fast

struct Selection {
  Cut cut;
  uint32_t edge;    // magnitudes from here on are listed
  uint32_t listed;  // how many there are, whole tiles included
  uint32_t least;   // when they are fewer, lists do not hold all that is wanted
  uint32_t bins[kBins];
  __device__ bool Misled() const { return listed < least; }
};

using Taken = unsigned long long;  // what atomicAdd knows
struct Scratch {
  Taken* taken;           // of the room
  IndexedValue* entries;  // [room]
  List* lists;            // [tiles]
  Counts* counts;         // [tiles]
  Selection* selections;  // [count]
  uint32_t room;
};
Scratch ScratchOf(const Table<TopKSegment>& table, uint32_t room, void* scratch) {
  Scratch out;
  out.taken = static_cast<Taken*>(scratch);
  out.entries = reinterpret_cast<IndexedValue*>(out.taken + 1);
  out.lists = reinterpret_cast<List*>(out.entries + room);
  out.counts = reinterpret_cast<Counts*>(out.lists + table.tiles);
  out.selections = reinterpret_cast<Selection*>(out.counts + table.tiles);
  out.room = room;
  return out;
}

// work(begin, end, entry) with what VisitByWarp takes: a tile's list, or the tile.
template <class Work>
__device__ void WithEntries(const TopKSegment& segment, const Scratch& scratch, bool misled,
                            int64_t tile, Work work) {
  const List list = scratch.lists[tile];
  if (misled || list.count == kWholeTile) {
    const TileRange range = RangeOf(segment, tile);
    work(range.begin, range.end,
         [&](int64_t i) { return EntryOf(__float_as_uint(segment.buffer[i]), i); });
  } else {
    const IndexedValue* entries = scratch.entries + list.first;
    work(int64_t{0}, int64_t{list.count}, [&](int64_t j) { return entries[j]; });
  }
}

// ---- edges and lists ----

constexpr int kSampleThreads = 512;

// The histogram of a digit over the sample.
__device__ void CountSample(const TopKSegment& segment, int64_t stride, int size, uint32_t cut,
                            int digit, uint32_t* bins) {
  constexpr int kAhead = 8;
  const MessageSpan message{segment.buffer, segment.addend, segment.scale};
  for (int at = 0; at < size; at += kAhead * kSampleThreads) {
    uint32_t bits[kAhead];
    for (int a = 0; a < kAhead; ++a) {
      const int j = at + a * kSampleThreads + static_cast<int>(threadIdx.x);
      bits[a] = j < size ? __float_as_uint(MessageAt(message, TopKSampledAt(j, stride))) : 0;
    }
    for (int a = 0; a < kAhead; ++a) {
      const int first = at + a * kSampleThreads;
      if (first >= size) break;
      const bool inside = first + static_cast<int>(threadIdx.x) < size;
      CountDigit(bins, bits[a] & 0x7FFFFFFFu, inside, cut, digit);
    }
  }
}

// Prepares all but lists and counts; a thread block a segment.
__global__ void __launch_bounds__(kSampleThreads)
    ChooseEdges(const TopKSegment* segments, Scratch scratch) {
  __shared__ uint32_t bins[kBins];
  __shared__ uint32_t sums[kSampleThreads / kWarp];
  __shared__ Cut chosen;
  const TopKSegment segment = segments[blockIdx.x];
  Selection& selection = scratch.selections[blockIdx.x];
  for (int bin = threadIdx.x; bin < kBins; bin += kSampleThreads) selection.bins[bin] = 0;
  if (threadIdx.x == 0) {
    if (blockIdx.x == 0) *scratch.taken = 0;
    selection.cut = {0, segment.k};
    selection.edge = selection.listed = 0;
    selection.least = segment.k;
  }
  if (segment.k == 0) {  // no magnitude is above this cut, and none at it is wanted
    if (threadIdx.x == 0) selection.cut = {0x7FFFFFFFu, 0}, selection.edge = kNone;
    return;
  }
  const int64_t stride = TopKSampleStride(segment.numel);
  const int size = static_cast<int>(segment.numel / stride);
  // Four standard deviations of a binomial count; not where the sample is everything.
  const float expected = static_cast<float>(segment.k) *
                         (static_cast<float>(size) / static_cast<float>(segment.numel));
  const uint32_t rank =
      stride == 1 ? segment.k : static_cast<uint32_t>(expected + 4 * sqrtf(expected) + 8);
  if (rank > static_cast<uint32_t>(size) / 8) return;
  Cut cut{0, rank};
  for (int digit = 0; digit < kDigits - 1; ++digit) {
    for (int bin = threadIdx.x; bin < kBins; bin += kSampleThreads) bins[bin] = 0;
    __syncthreads();
    CountSample(segment, stride, size, cut.magnitude, digit, bins);
    __syncthreads();
    cut = ChooseDigit<kSampleThreads>(bins, cut, digit, sums, &chosen);
  }
  // Mostly zeros: every other element is listed.
  if (threadIdx.x == 0) selection.edge = cut.magnitude == 0 ? 1 : cut.magnitude;
}

// The same for what is above a threshold; a thread a segment.
__global__ void __launch_bounds__(kThreads) SetEdges(int count, Scratch scratch, uint32_t bound) {
  const int at = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (at == 0) *scratch.taken = 0;
  if (at >= count) return;
  Selection& selection = scratch.selections[at];
  selection.cut = {bound, 0};
  selection.edge = bound + 1;
  selection.listed = selection.least = 0;
}

constexpr int kHeld = kTile / kThreads;  // elements of a tile that a thread holds

// Where in its tile element h of a thread lies: kWide of them in a row, then those of the next
// lane, up to the end of the warp's share.
template <int kWide>
__device__ int PlaceOf(int h) {
  return WarpOf() * kWarpShare + (h / kWide * kWarp + LaneOf()) * kWide + h % kWide;
}
template <int kWide>
__device__ void LoadHeld(const float* from, int size, float* x) {
  for (int h = 0; h < kHeld; h += kWide) {
    const int place = PlaceOf<kWide>(h);
    if constexpr (kWide == 4) {
      const Four four = FourAt(from + place);
      for (int c = 0; c < 4; ++c) x[h + c] = four.x[c];
    } else {
      x[h] = place < size ? from[place] : 0.0f;
    }
  }
}
template <int kWide>
__device__ void StoreHeld(float* to, int size, const float* x) {
  for (int h = 0; h < kHeld; h += kWide) {
    const int place = PlaceOf<kWide>(h);
    if constexpr (kWide == 4) {
      Four four;
      for (int c = 0; c < 4; ++c) four.x[c] = x[h + c];
      PutFour(to + place, four);
    } else {
      if (place < size) to[place] = x[h];
    }
  }
}

// The additions of the block's tile, and what a thread holds of it then. kWide = 4 for whole tiles
// at aligned addresses.
template <int kWide>
__device__ void AddAndHold(const TopKSegment& segment, const TileRange& tile, float* x) {
  const int size = static_cast<int>(tile.end - tile.begin);
  LoadHeld<kWide>(segment.buffer + tile.begin, size, x);
  if (segment.addend == nullptr) return;
  float addend[kHeld];
  LoadHeld<kWide>(segment.addend + tile.begin, size, addend);
  for (int h = 0; h < kHeld; ++h) x[h] = x[h] + segment.scale * addend[h];
  StoreHeld<kWide>(segment.buffer + tile.begin, size, x);
}

// How many bits the four nibbles have set, a byte each.
__device__ uint32_t CountNibbles(uint32_t bits) {
  bits -= bits >> 1 & 0x5555u;
  bits = (bits & 0x3333u) + (bits >> 2 & 0x3333u);
  bits = (bits | bits << 8) & 0x00FF00FFu;
  return (bits | bits << 4) & 0x0F0F0F0Fu;
}
__device__ uint32_t SumOfBytes(uint32_t bytes) {
  bytes = (bytes & 0x00FF00FFu) + (bytes >> 8 & 0x00FF00FFu);
  return (bytes & 0xFFFFu) + (bytes >> 16);
}

// Room for what a tile lists; called by one thread.
__device__ List RoomFor(uint32_t total, const Scratch& scratch) {
  if (total == 0) return {0, 0};
  if (total > kMostListed) return {0, kWholeTile};
  const Taken first = atomicAdd(scratch.taken, Taken{total});
  return {static_cast<uint32_t>(first), first + total <= scratch.room ? total : kWholeTile};
}

// The additions and the list of a tile. Five blocks at a time: what they wait for keeps the memory
// busy.
__global__ void __launch_bounds__(kThreads, 5)
    ListTiles(const TopKSegment* segments, int count, Scratch scratch) {
  static_assert(kHeld == 16, "four nibbles");
  __shared__ Four turned[kTile / 4];
  __shared__ uint32_t counts[kWarps];
  __shared__ List list;
  const int segment_at = SegmentOf(segments, count, blockIdx.x);
  const TopKSegment segment = segments[segment_at];
  Selection& selection = scratch.selections[segment_at];
  const uint32_t edge = selection.edge;
  const TileRange tile = RangeOf(segment, blockIdx.x);
  const int size = static_cast<int>(tile.end - tile.begin);
  float x[kHeld];
  if (size == kTile && IsAligned(segment.buffer) && IsAligned(segment.addend)) {
    AddAndHold<4>(segment, tile, x);
  } else {
    AddAndHold<1>(segment, tile, x);
    StoreHeld<1>(turned[0].x, kTile, x);
    __syncwarp();
    LoadHeld<4>(turned[0].x, kTile, x);
  }
  uint32_t reached = 0;  // bit h: element h reaches the edge
  for (int h = 0; h < kHeld; ++h) {
    const bool reaches = (__float_as_uint(x[h]) & 0x7FFFFFFFu) >= edge && PlaceOf<4>(h) < size;
    reached |= uint32_t{reaches} << h;
  }
  // A byte for each four in a row: of the warp's 128 there, so many lie in the lanes before.
  const uint32_t own = CountNibbles(reached);
  uint32_t before = own;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const uint32_t below = __shfl_up_sync(kWholeWarp, before, distance);
    if (LaneOf() >= distance) before += below;
  }
  const uint32_t all = __shfl_sync(kWholeWarp, before, kWarp - 1);
  before -= own;
  if (LaneOf() == 0) counts[WarpOf()] = SumOfBytes(all);
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32_t total = 0;
    for (int warp = 0; warp < kWarps; ++warp) total += counts[warp];
    scratch.lists[blockIdx.x] = list = RoomFor(total, scratch);
    scratch.counts[blockIdx.x] = {total, 0};
    if (total > 0) atomicAdd(&selection.listed, total);
  }
  __syncthreads();
  if (list.count == kWholeTile) return;
  IndexedValue* entries = scratch.entries + list.first;
  for (int warp = 0; warp < WarpOf(); ++warp) entries += counts[warp];
  for (uint32_t left = reached; left != 0; left &= left - 1) {
    const int h = __ffs(static_cast<int>(left)) - 1, row = h / 4;
    const uint32_t earlier = reached & ((1u << h) - 1) & 0xFu << 4 * row;
    const uint32_t at = SumOfBytes(all & ((1u << 8 * row) - 1)) + (before >> 8 * row & 0xFFu) +
                        static_cast<uint32_t>(__popc(earlier));
    const int64_t index = tile.begin + PlaceOf<4>(h);
    entries[at] = EntryOf(__float_as_uint(segment.buffer[index]), index);
  }
}

// ---- the cut ----

// The histogram of a digit over elements that share the bits above. A thread block has `each` tiles
// in a row, a warp one of them at a time.
__global__ void __launch_bounds__(kThreads)
    CountDigits(const TopKSegment* segments, int count, Scratch scratch, int64_t tiles,
                int64_t each, int digit) {
  __shared__ uint32_t bins[kBins];
  const int64_t begin = int64_t{blockIdx.x} * each;
  const int64_t end = begin + each < tiles ? begin + each : tiles;
  for (int64_t first = begin; first < end;) {
    const int at = SegmentOf(segments, count, first);
    const TopKSegment segment = segments[at];
    Selection& selection = scratch.selections[at];
    const uint32_t cut = selection.cut.magnitude;
    const bool misled = selection.Misled();
    const int64_t behind = segment.first_tile + (segment.numel + kTile - 1) / kTile;
    const int64_t stop = behind < end ? behind : end;
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) bins[bin] = 0;
    __syncthreads();
    for (int64_t tile = first + WarpOf(); tile < stop; tile += kWarps) {
      WithEntries(segment, scratch, misled, tile, [&](int64_t from, int64_t to, auto entry) {
        VisitByWarp(from, to, entry, [&](IndexedValue e, bool inside) {
          CountDigit(bins, MagnitudeOf(e), inside, cut, digit);
        });
      });
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) {
      if (bins[bin]) atomicAdd(selection.bins + bin, bins[bin]);
    }
    __syncthreads();
    first = stop;
  }
}

// A thread block a segment; leaves the histogram empty.
__global__ void __launch_bounds__(kThreads)
    ChooseDigits(const TopKSegment* segments, Selection* selections, int digit) {
  __shared__ uint32_t sums[kWarps];
  __shared__ Cut chosen;
  if (segments[blockIdx.x].k == 0) return;
  Selection& selection = selections[blockIdx.x];
  const Cut cut = ChooseDigit<kThreads>(selection.bins, selection.cut, digit, sums, &chosen);
  if (threadIdx.x == 0) selection.cut = cut;
  for (int bin = threadIdx.x; bin < kBins; bin += kThreads) selection.bins[bin] = 0;
}

// ---- what is taken ----

// A warp a tile.
__global__ void __launch_bounds__(kThreads)
    CountTaken(const TopKSegment* segments, int count, Scratch scratch, int64_t tiles) {
  const int64_t tile = int64_t{blockIdx.x} * kWarps + WarpOf();
  if (tile >= tiles) return;
  const int at = SegmentOf(segments, count, tile);
  const Selection& selection = scratch.selections[at];
  const uint32_t cut = selection.cut.magnitude;
  Counts counts{0, 0};
  WithEntries(
      segments[at], scratch, selection.Misled(), tile,
      [&](int64_t from, int64_t to, auto entry) { counts = CountByWarp(from, to, cut, entry); });
  if (LaneOf() == 0) scratch.counts[tile] = counts;
}

constexpr int kPlaceThreads = 1024, kPlaceEach = 4;

// Makes the counts of a segment's tiles those of all tiles before; a thread block a segment.
__global__ void __launch_bounds__(kPlaceThreads)
    PlaceTaken(const TopKSegment* segments, Counts* counts, bool above_only) {
  __shared__ uint64_t shared[kPlaceThreads / kWarp];
  const TopKSegment segment = segments[blockIdx.x];
  const int64_t tiles = (segment.numel + kTile - 1) / kTile;
  counts += segment.first_tile;
  uint64_t before = 0;  // ties in the low half, of which there are fewer than 2^32
  for (int64_t first = 0; first < tiles; first += kPlaceThreads * kPlaceEach) {
    const int64_t at = first + int64_t{threadIdx.x} * kPlaceEach;
    uint64_t own[kPlaceEach], sum = 0;
    for (int i = 0; i < kPlaceEach; ++i) {
      const Counts tile = at + i < tiles ? counts[at + i] : Counts{0, 0};
      own[i] = uint64_t{tile.above} << 32 | tile.ties;
      sum += own[i];
    }
    const Sums<uint64_t> sums = SumsOfBlock<kPlaceThreads>(sum, shared);
    uint64_t place = before + sums.before;
    for (int i = 0; i < kPlaceEach; place += own[i++]) {
      if (at + i >= tiles) break;
      counts[at + i] = {static_cast<uint32_t>(place >> 32), static_cast<uint32_t>(place)};
    }
    before += sums.all;
  }
  if (above_only && threadIdx.x == 0) *segment.found = static_cast<uint32_t>(before >> 32);
}

// A warp a tile.
__global__ void __launch_bounds__(kThreads)
    TakeTiles(const TopKSegment* segments, int count, Scratch scratch, int64_t tiles,
              bool above_only) {
  const int64_t tile = int64_t{blockIdx.x} * kWarps + WarpOf();
  if (tile >= tiles) return;
  const int at = SegmentOf(segments, count, tile);
  const TopKSegment segment = segments[at];
  if (above_only && *segment.found > segment.k) return;
  const Selection& selection = scratch.selections[at];
  const Cut cut = selection.cut;
  const Counts before = scratch.counts[tile];
  WithEntries(segment, scratch, selection.Misled(), tile,
              [&](int64_t from, int64_t to, auto entry) {
                TakeByWarp(segment, from, to, cut, before, entry);
              });
}

// All of a segment of one tile, whose bits lie in shared memory.
__global__ void __launch_bounds__(kThreads)
    TakeShortSegments(const TopKSegment* segments, int count) {
  __shared__ uint32_t bits[kTile];
  __shared__ uint32_t bins[kBins];
  __shared__ uint32_t sums[kWarps];
  __shared__ Counts shared[kWarps];
  __shared__ Cut chosen;
  const TopKSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const int size = static_cast<int>(segment.numel);
  for (int i = threadIdx.x; i < size; i += kThreads) {
    float x = segment.buffer[i];
    if (segment.addend) {
      x = x + segment.scale * segment.addend[i];
      segment.buffer[i] = x;
    }
    bits[i] = __float_as_uint(x);
  }
  if (segment.k == 0) return;
  const auto entry = [&](int64_t i) { return EntryOf(bits[i], i); };
  const int begin = WarpOf() * kWarpShare;
  const int end = begin + kWarpShare < size ? begin + kWarpShare : size;
  Cut cut{0, segment.k};
  for (int digit = 0; digit < kDigits; ++digit) {
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) bins[bin] = 0;
    __syncthreads();
    VisitByWarp(begin, end, entry, [&](IndexedValue e, bool inside) {
      CountDigit(bins, MagnitudeOf(e), inside, cut.magnitude, digit);
    });
    __syncthreads();
    cut = ChooseDigit<kThreads>(bins, cut, digit, sums, &chosen);
  }
  const Counts own = CountByWarp(begin, end, cut.magnitude, entry);
  if (LaneOf() == 0) shared[WarpOf()] = own;
  __syncthreads();
  Counts before{0, 0};
  for (int warp = 0; warp < WarpOf(); ++warp) {
    before.above += shared[warp].above;
    before.ties += shared[warp].ties;
  }
  TakeByWarp(segment, begin, end, cut, before, entry);
}

void Take(const Table<TopKSegment>& table, const Scratch& scratch, bool above_only, Stream stream) {
  Launch(PlaceTaken, table.count, kPlaceThreads, stream, table.segments, scratch.counts,
         above_only);
  Launch(TakeTiles, (table.tiles + kWarps - 1) / kWarps, kThreads, stream, table.segments,
         table.count, scratch, table.tiles, above_only);
}

}  // namespace

uint32_t TopKRoom(std::span<const TopKSegment> segments) {
  int64_t room = 0;
  for (const TopKSegment& segment : segments) {
    const int64_t few = segment.numel / 16, k = segment.k < few ? int64_t{segment.k} : few;
    room += k + k / 4 + segment.numel / 128 + kWarp;
  }
  return room < int64_t{~0u} ? static_cast<uint32_t>(room) : ~0u;
}

int64_t TopKScratchBytes(int32_t count, int64_t tiles, uint32_t room) {
  return int64_t{sizeof(Taken)} + room * int64_t{sizeof(IndexedValue)} +
         tiles * int64_t{sizeof(List) + sizeof(Counts)} + count * int64_t{sizeof(Selection)};
}

void TakeTopK(Table<TopKSegment> table, uint32_t room, void* scratch, Stream stream) {
  if (table.tiles == 0) return;
  const Scratch parts = ScratchOf(table, room, scratch);
  Launch(ChooseEdges, table.count, kSampleThreads, stream, table.segments, parts);
  Launch(ListTiles, table.tiles, kThreads, stream, table.segments, table.count, parts);
  // Enough thread blocks for a GPU, and not a histogram for every few tiles.
  constexpr int64_t kBlocks = 1024;
  const int64_t each =
      table.tiles < kBlocks * kWarps ? kWarps : (table.tiles + kBlocks - 1) / kBlocks;
  for (int digit = 0; digit < kDigits; ++digit) {
    Launch(CountDigits, (table.tiles + each - 1) / each, kThreads, stream, table.segments,
           table.count, parts, table.tiles, each, digit);
    Launch(ChooseDigits, table.count, kThreads, stream, table.segments, parts.selections, digit);
  }
  Launch(CountTaken, (table.tiles + kWarps - 1) / kWarps, kThreads, stream, table.segments,
         table.count, parts, table.tiles);
  Take(table, parts, /*above_only=*/false, stream);
}

void TakeTopKShort(Table<TopKSegment> table, Stream stream) {
  Launch(TakeShortSegments, table.tiles, kThreads, stream, table.segments, table.count);
}

void TakeAbove(Table<TopKSegment> table, float threshold, uint32_t room, void* scratch,
               Stream stream) {
  const Scratch parts = ScratchOf(table, room, scratch);
  const uint32_t bound = std::bit_cast<uint32_t>(threshold) & 0x7FFFFFFFu;
  Launch(SetEdges, (table.count + kThreads - 1) / kThreads, kThreads, stream, table.count, parts,
         bound);
  Launch(ListTiles, table.tiles, kThreads, stream, table.segments, table.count, parts);
  Take(table, parts, /*above_only=*/true, stream);
}

}  // namespace tw::kernels::device
