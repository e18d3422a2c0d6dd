#pragma once
// Random index sets that all ranks agree on, as a bitmap: bit i % 64 of word i / 64 tells whether i
// is in the set. Integer arithmetic only, so the set is a pure function of its arguments on every
// machine. Thread safe.

#include <cstdint>
#include <span>

#include "core/kernels/message_view.h"

namespace tw::kernels {

inline size_t BitmapWords(size_t numel) { return (numel + 63) / 64; }

// A uniform subset of k of the indices below numel. Floyd's algorithm (Bentley and Floyd, CACM
// 1987): for j = numel - k, ..., numel - 1 draw t <= j; add t, or j where t is in already. Every
// subset is equally likely, with one draw an index and no rejection. For k > numel / 2 the
// complement is drawn. `key` names the stream. REQUIRES: k <= numel, bitmap.size() ==
// BitmapWords(numel).
void MarkSubset(uint64_t key, size_t numel, size_t k, std::span<uint64_t> bitmap);

// Performs the pending addition; writes the marked elements, ascending, as fp32 to `to` (any
// address) and replaces each marked x by x - decoded_factor * x.
void TakeMarked(const MessageView& message, std::span<const uint64_t> bitmap, float decoded_factor,
                uint8_t* to);
// out[i_j] += s * from[j] for the j-th marked index i_j.
void AddMarked(std::span<float> out, std::span<const uint64_t> bitmap, float s,
               const uint8_t* from);

}  // namespace tw::kernels
