#pragma once
// The k largest magnitudes of a message, exactly: by magnitude descending, equal magnitudes by
// index ascending. No vector width, sample or fallback changes the result.
//
// How. A sample at fixed pseudo-random places gives a threshold that slightly more than k elements
// reach. One vectorised pass performs the pending addition, writes the buffer and moves those
// candidates out of it; a radix selection on their magnitude bits (31-bit integers order like the
// magnitudes) picks k of them and the others go back. When the guess was wrong (fewer than k
// candidates, or more than fit) everything goes back and the radix selection runs on the buffer.

#include <bit>
#include <cstdint>
#include <span>

#include "core/kernels/message_view.h"

namespace tw::kernels {

// A selected element: index in the low half, bits of its fp32 value in the high half.
using IndexedValue = uint64_t;
inline uint32_t IndexOf(IndexedValue e) { return static_cast<uint32_t>(e); }
inline uint32_t ValueBitsOf(IndexedValue e) { return static_cast<uint32_t>(e >> 32); }
inline IndexedValue MakeIndexedValue(uint32_t index, float value) {
  return IndexedValue{std::bit_cast<uint32_t>(value)} << 32 | index;
}

// Room for one step of the widest vectors beyond what is counted on.
inline constexpr size_t kTakeSlack = 64;

// Elements of scratch that TakeTopK needs.
size_t TopKScratch(size_t numel, size_t k);

// Performs the pending addition, moves the k largest magnitudes out of the buffer (which then holds
// zeros there: the residual) and returns them at the front of scratch, indices ascending.
// REQUIRES: k <= numel < 2^32, scratch.size() >= TopKScratch(numel, k), or k on a device. Thread
// safe.
std::span<const IndexedValue> TakeTopK(const MessageView& message, size_t k,
                                       std::span<IndexedValue> scratch);

// The same for one of many short messages in a row, whose k-th largest magnitude is probably near
// *near (that of the message before; 0: no idea). Leaves its own there. Only the time depends on
// what *near is; a device leaves it alone.
std::span<const IndexedValue> TakeTopKNear(const MessageView& message, size_t k,
                                           std::span<IndexedValue> scratch, float* near);

// Performs the pending addition and moves every element with |x| > threshold (>= 0) out, indices
// ascending. Returns how many there are; when that plus kTakeSlack is more than scratch.size(),
// nothing was moved but the addition is done. REQUIRES: numel < 2^32, scratch.size() >= kTakeSlack.
size_t TakeAbove(const MessageView& message, float threshold, std::span<IndexedValue> scratch);

}  // namespace tw::kernels
