#include "compressors/gap_code.h"

#include <zstd.h>

#include <memory>

#include "core/kernels/index_pack.h"

namespace tw {
namespace {

constexpr int kLevel = 1;
constexpr size_t kMostGapBytes = 5;  // of a gap below 2^32

struct Free {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};
// One a thread: codecs are shared, and a context is costly to make.
ZSTD_CCtx* Packer() {
  thread_local const std::unique_ptr<ZSTD_CCtx, Free> packer(ZSTD_createCCtx());
  return packer.get();
}
ZSTD_DCtx* Unpacker() {
  thread_local const std::unique_ptr<ZSTD_DCtx, Free> unpacker(ZSTD_createDCtx());
  return unpacker.get();
}

}  // namespace

StatusOr<size_t> EncodeGaps(std::span<const kernels::IndexedValue> ascending, Workspace& scratch,
                            MutableByteSpan to) {
  const auto plain =
      scratch.Get<uint8_t>(kScratchCodec1, kMostGapBytes * ascending.size() + kMostGapBytes);
  uint8_t* at = plain.data();
  uint32_t next = 0;  // the smallest index that may follow
  for (const auto e : ascending) {
    uint32_t gap = kernels::IndexOf(e) - next;
    next = kernels::IndexOf(e) + 1;
    for (; gap >= 0x80; gap >>= 7) *at++ = static_cast<uint8_t>(gap | 0x80);
    *at++ = static_cast<uint8_t>(gap);
  }
  const size_t size = static_cast<size_t>(at - plain.data());
  const auto frame = scratch.Get<uint8_t>(kScratchCodec2, ZSTD_compressBound(size));
  const size_t written =
      ZSTD_compressCCtx(Packer(), frame.data(), frame.size(), plain.data(), size, kLevel);
  if (ZSTD_isError(written)) return BugError("zstd: " + std::string(ZSTD_getErrorName(written)));
  if (written >= to.size()) return size_t{0};
  std::copy_n(frame.data(), written, to.data());
  return written;
}

StatusOr<ByteSpan> DecodeGaps(ByteSpan frame, size_t count, uint64_t numel, int bits,
                              Workspace& scratch) {
  const auto malformed = [] { return DataLoss("entropy-coded indices are malformed"); };
  const auto plain = scratch.Get<uint8_t>(kScratchCodec1, kMostGapBytes * count + 1);
  const size_t size =
      ZSTD_decompressDCtx(Unpacker(), plain.data(), plain.size() - 1, frame.data(), frame.size());
  if (ZSTD_isError(size)) return malformed();
  const auto packed =
      scratch.Get<uint8_t>(kScratchCodec2, kernels::PackedIndexBytes(count, bits) + 4);
  kernels::IndexWriter indices(packed.data(), bits);
  const uint8_t* at = plain.data();
  const uint8_t* const end = at + size;
  uint64_t next = 0;
  for (size_t j = 0; j < count; ++j) {
    uint64_t gap = 0;
    for (int shift = 0;; shift += 7) {
      if (at == end || shift > 28) return malformed();
      gap |= uint64_t{*at & 0x7Fu} << shift;
      if (!(*at++ & 0x80)) break;
    }
    if (next + gap >= numel) return malformed();
    indices.Put(static_cast<uint32_t>(next + gap));
    next += gap + 1;
  }
  if (at != end) return malformed();
  indices.Finish();
  return ByteSpan(packed.data(), kernels::PackedIndexBytes(count, bits));
}

}  // namespace tw
