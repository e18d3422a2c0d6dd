#pragma once
// Entropy coding of ascending indices: gaps as 7-bit groups, then zstd. At a density of 1 % an
// index takes about 1.1 bytes, its entropy being 8.1 bits.

#include <span>

#include "core/base/bytes.h"
#include "core/base/status.h"
#include "core/base/workspace.h"
#include "core/kernels/topk.h"

namespace tw {

// Writes the frame of the elements' indices to `to` and returns its length; 0 when it would not be
// shorter than `to`. Uses codec scratch.
StatusOr<size_t> EncodeGaps(std::span<const kernels::IndexedValue> ascending, Workspace& scratch,
                            MutableByteSpan to);
// `count` indices below numel from a frame, packed with `bits` bits each (index_pack.h) in codec
// scratch. DataLoss when malformed.
StatusOr<ByteSpan> DecodeGaps(ByteSpan frame, size_t count, uint64_t numel, int bits,
                              Workspace& scratch);

}  // namespace tw
