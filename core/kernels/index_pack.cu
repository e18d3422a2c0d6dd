#include "core/kernels/index_pack_device.h"

#include <cmath>
#include <limits>

#include "core/kernels/launch.cuh"
#include "core/kernels/value_grid.h"

namespace tw::kernels::device {
namespace {

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

// Word `at` of the numbers of `bits` bits each, of which there are `count`, one behind the other.
__device__ uint32_t WordAt(const uint32_t* numbers, int count, int bits, int at) {
  uint32_t word = 0;
  for (int j = at * 32 / bits; j < count && j * bits < at * 32 + 32; ++j) {
    const int shift = j * bits - at * 32;
    word |= shift < 0 ? numbers[j] >> -shift : numbers[j] << shift;
  }
  return word;
}

// Through shared memory, so that threads in a row read entries and write words in a row.
__global__ void __launch_bounds__(kThreads) PackTiles(const IndexSegment* segments, int count) {
  __shared__ uint32_t indices[kTile];
  const IndexSegment segment = segments[SegmentOf(segments, count, blockIdx.x)];
  const TileRange tile = RangeOf(segment, blockIdx.x);
  const int size = static_cast<int>(tile.end - tile.begin);
  for (int j = static_cast<int>(threadIdx.x); j < size; j += kThreads) {
    const IndexedValue entry = segment.list[tile.begin + j];
    indices[j] = static_cast<uint32_t>(entry);
    StoreAny(segment.values + (tile.begin + j) * 4, static_cast<uint32_t>(entry >> 32));
  }
  __syncthreads();
  uint8_t* packed = segment.packed + tile.begin / kWholeBytes * segment.bits;
  const int bytes = (size * segment.bits + 7) / 8;
  for (int at = static_cast<int>(threadIdx.x); at * 4 < bytes; at += kThreads) {
    const uint32_t word = WordAt(indices, size, segment.bits, at);
    if (at * 4 + 4 <= bytes) {
      StoreAny(packed + at * 4, word);
    } else {
      for (int i = 0; at * 4 + i < bytes; ++i)
        packed[at * 4 + i] = static_cast<uint8_t>(word >> 8 * i);
    }
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

}  // namespace

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
