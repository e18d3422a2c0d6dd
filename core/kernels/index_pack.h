#pragma once
// Ascending indices in the fewest whole bits each, least significant bit first:
// index j occupies bits [j * width, (j + 1) * width) of the packed bytes; padding bits are zero.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>

#include "core/base/bytes.h"
#include "core/kernels/topk.h"

namespace tw::kernels {

// ceil(log2 numel): bits that hold any index below numel; 0 for numel <= 1, at most 32.
inline int IndexBits(uint64_t numel) {
  return numel <= 1 ? 0 : static_cast<int>(std::bit_width(numel - 1));
}
inline size_t PackedIndexBytes(size_t count, int bits) {
  return (count * static_cast<size_t>(bits) + 7) / 8;
}

// Appends indices of `bits` bits each; Finish() writes the last bytes.
class IndexWriter {
 public:
  // `to` has PackedIndexBytes of room.
  IndexWriter(uint8_t* to, int bits) : to_(to), bits_(bits) {}
  void Put(uint32_t index) {
    pending_ |= uint64_t{index} << fill_;
    fill_ += bits_;
    if (fill_ >= 32) {
      StoreLE(to_, static_cast<uint32_t>(pending_));
      to_ += 4;
      pending_ >>= 32;
      fill_ -= 32;
    }
  }
  void Finish() {
    for (; fill_ > 0; fill_ -= 8, pending_ >>= 8) *to_++ = static_cast<uint8_t>(pending_);
  }

 private:
  uint8_t* to_;
  int bits_;
  int fill_ = 0;
  uint64_t pending_ = 0;
};

// Reads what IndexWriter wrote and never beyond `packed`.
class IndexReader {
 public:
  IndexReader(ByteSpan packed, int bits)
      : at_(packed.data()),
        end_(packed.data() + packed.size()),
        bits_(bits),
        mask_((uint64_t{1} << bits) - 1) {}
  uint32_t Next() {
    if (fill_ < bits_) Refill();
    const uint32_t index = static_cast<uint32_t>(pending_ & mask_);
    pending_ >>= bits_;
    fill_ -= bits_;
    return index;
  }
  // Once all indices are read: nothing but zero bits is left.
  bool PaddingIsZero() const { return pending_ == 0 && at_ == end_; }

 private:
  void Refill() {
    if (end_ - at_ >= 4) {
      pending_ |= uint64_t{LoadLE<uint32_t>(at_)} << fill_;
      at_ += 4;
      fill_ += 32;
      return;
    }
    for (; at_ != end_; ++at_, fill_ += 8) pending_ |= uint64_t{*at_} << fill_;
  }
  const uint8_t* at_;
  const uint8_t* end_;
  int bits_;
  uint64_t mask_;
  int fill_ = 0;
  uint64_t pending_ = 0;
};

// take(j, index j) for j = 0 .. count-1. Every index is read by its place and waits for no other,
// where IndexReader shifts its way through. REQUIRES: packed.size() >= PackedIndexBytes(count,
// bits).
template <class F>
void ForEachIndex(ByteSpan packed, int bits, size_t count, F&& take) {
  if (bits == 0) {
    for (size_t j = 0; j < count; ++j) take(j, uint32_t{0});
    return;
  }
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  const uint8_t* data = packed.data();
  constexpr size_t kWord = sizeof(uint64_t);
  // Those whose word of eight bytes ends within `packed`.
  const size_t width = static_cast<size_t>(bits);
  const size_t whole =
      packed.size() < kWord ? 0 : std::min(count, ((packed.size() - kWord) * 8 + 7) / width + 1);
  size_t bit = 0;
  for (size_t j = 0; j < whole; ++j, bit += width) {
    take(j, static_cast<uint32_t>((LoadLE<uint64_t>(data + bit / 8) >> (bit % 8)) & mask));
  }
  for (size_t j = whole; j < count; ++j, bit += width) {
    uint8_t word[kWord] = {};
    std::copy_n(data + bit / 8, std::min(kWord, packed.size() - bit / 8), word);
    take(j, static_cast<uint32_t>((LoadLE<uint64_t>(word) >> (bit % 8)) & mask));
  }
}

// True when `packed` holds `count` strictly ascending indices below `numel` and zero padding.
// REQUIRES: packed.size() == PackedIndexBytes(count, bits).
inline bool AscendingBelow(ByteSpan packed, int bits, size_t count, uint64_t numel) {
  uint64_t next = 0;  // the smallest index allowed here
  bool ascending = true;
  ForEachIndex(packed, bits, count, [&](size_t, uint32_t index) {
    ascending &= index >= next;
    next = uint64_t{index} + 1;
  });
  const size_t used = count * static_cast<size_t>(bits) % 8;
  return ascending && next <= numel && (used == 0 || packed.back() >> used == 0);
}

// The indices of a list, ascending, with `bits` bits each to `packed`, its values as fp32 to
// `values`; any addresses.
void PackEntries(std::span<const IndexedValue> list, int bits, uint8_t* packed, uint8_t* values);
// out[index j] += scale * fp32 number j of `values`, for `count` distinct indices below out.size().
void AddAtIndices(std::span<float> out, float scale, ByteSpan packed, int bits, size_t count,
                  const uint8_t* values);

// The same with values of value_bits bits each (2 .. 16) on the grids of groups of `group` entries
// (value_grid.h): for every group fp32 a, fp32 b and its codes, padded with zero bits to a byte.
// `buffer` is what the list was taken out of; it gets back what the codes lose. REQUIRES: `group`
// is a multiple of 8, or there is one group.
size_t GridBytes(size_t count, size_t group, int value_bits);
void PackEntriesOnGrids(std::span<const IndexedValue> list, std::span<float> buffer, int index_bits,
                        uint8_t* packed, int value_bits, size_t group, uint8_t* values);
void AddAtIndicesFromGrids(std::span<float> out, float scale, ByteSpan packed, int index_bits,
                           size_t count, int value_bits, size_t group, const uint8_t* values);

}  // namespace tw::kernels
