// Re-encoding exchange (Merge::kReencode): both hops travel compressed. For codecs whose scales are
// local to a block (trait `block`).
//
//   chunks      each parameter is cut into n chunks on its own block grid, of nearly equal numbers
//               of blocks (some get none); chunk c of parameter p belongs to rank (c - p) mod n
//   scatter     every rank gets everybody's bytes of its own chunks
//   add         mean = sum over ranks, in rank order, of decode(slice) / n, in fp32
//   re-encode   body = encode(mean), with numbers keyed (parameter, first element of the chunk)
//   gather      all ranks decode all chunks, the own ones too, from the gathered bytes
//
// The cut depends on the parameter and the number of ranks only, never on which other parameters
// share a bucket or who owns a chunk: 1 bucket or 20 give the same bits. Bodies travel raw, slice
// behind slice in segment order; every length follows from the shapes and is checked. One rank
// decodes its own body once and does not encode again.
//
// What the second encoding loses is forgotten, or with compressor.hop_feedback kept by the chunk's
// owner and added to its next mean:   message = e + mean;   e <- message - decode(own chunk)
// State then, a parameter and rank: "e", fp32, shaped as the parameter, in gradient units, zero but
// for the own chunks, and "ranks", for which chunks it was. Another number of ranks owns other
// chunks: e starts from zero then, and one encoding's error is lost once.

#include <algorithm>
#include <numeric>

#include "core/api/exchange.h"
#include "core/base/clock.h"
#include "core/base/device.h"

namespace tw {
namespace {

// A run of whole blocks of one parameter (its last block may be short).
struct Chunk {
  int64_t begin = 0;  // elements
  int64_t count = 0;
  int64_t byte_begin = 0;  // in the body of the whole parameter
  int64_t bytes = 0;
};

Chunk ChunkOf(const Segment& segment, int owner, int n) {
  const int64_t numel = segment.context.spec->numel();
  const int64_t block = segment.codec->BlockElements();
  const int64_t num_blocks = (numel + block - 1) / block;
  // Without the rotation by parameter the last rank would own every small one.
  const int64_t index = (owner + static_cast<int64_t>(segment.context.spec->id)) % n;
  Chunk chunk;
  chunk.begin = std::min(numel, num_blocks * index / n * block);
  chunk.count = std::min(numel, num_blocks * (index + 1) / n * block) - chunk.begin;
  chunk.byte_begin = chunk.begin ? segment.codec->ChunkBytes(chunk.begin) : 0;
  chunk.bytes = chunk.count ? segment.codec->ChunkBytes(chunk.count) : 0;
  return chunk;
}

int64_t OwnedBytes(std::span<const Segment> segments, int owner, int n) {
  int64_t bytes = 0;
  for (const Segment& segment : segments) bytes += ChunkOf(segment, owner, n).bytes;
  return bytes;
}

Status Name(const Status& status, int rank, const Segment& segment) {
  if (status.ok()) return status;
  return Annotate(
      status, "from rank " + std::to_string(rank) + ", parameter " + segment.context.spec->name);
}

// The part of the second hop's error memory that belongs to a chunk.
std::span<float> HopMemory(const Segment& segment, const Chunk& chunk, int n) {
  StateBag& bag = *segment.hop->bag();
  const std::string name = segment.hop->prefix() + "ranks";  // the host's, wherever e is
  const TensorView ranks = bag.Slot(name, {1}, DType::kI32, Reshard::kReplicated);
  bag.Touch(name);
  const TensorView e =
      segment.hop->Slot("e", segment.context.spec->shape, DType::kF32, Reshard::kKeepMean);
  int32_t& of = *static_cast<int32_t*>(ranks.data);
  if (of != n) ZeroBytes(e.data, static_cast<size_t>(e.bytes()));
  of = n;
  return e.f32().subspan(static_cast<size_t>(chunk.begin), static_cast<size_t>(chunk.count));
}

class ReencodeExchange : public Exchange {
 public:
  static StatusOr<std::unique_ptr<Exchange>> Create(const NoConfig&) {
    return std::make_unique<ReencodeExchange>();
  }

  Merge merge() const override { return Merge::kReencode; }

  // n slices of an n-th, then all chunks.
  ExchangeWork Work(const CompressorTraits& traits, int64_t payload_bytes,
                    int ranks) const override {
    ExchangeWork work = Exchange::Work(traits, payload_bytes, ranks);
    if (ranks > 1) work.decodes = 2, work.encodes = 1.0 / ranks;
    return work;
  }

  Async Start(ExchangeCall call) const override {
    TW_CHECK(call.last_round);  // block codecs have one round
    const std::span<Segment> segments = call.segments;
    const OpTag& tag = call.tag;
    Communicator& comm = *call.comm;
    Workspace& scratch = *call.scratch;
    ExchangeTimes* const times = call.times;
    for (const Segment& segment : segments) {
      const int64_t numel = segment.context.spec->numel();
      TW_CHECK(segment.codec->traits().block);
      TW_CHECK_EQ(static_cast<int64_t>(segment.body.size()),
                  numel ? segment.codec->ChunkBytes(numel) : 0);
    }
    if (comm.size() == 1) {
      ScopedTimer timer(&times->decode_ms);
      Together together;
      for (const Segment& segment : segments) {
        together.Next();
        TW_CO_RETURN_IF_ERROR(
            Name(segment.codec->DecodeAddAny(segment.body, 1.0f, segment.context, segment.mean), 0,
                 segment));
      }
      co_return OkStatus();
    }
    const size_t n = static_cast<size_t>(comm.size());
    const auto lengths = scratch.GetHost<int64_t>(kScratchExchange3, 3 * n);
    const auto owned = lengths.first(n);          // bytes each rank owns
    const auto incoming = lengths.subspan(n, n);  // bytes each rank sends here
    int64_t total = 0;
    for (size_t r = 0; r < n; ++r) {
      owned[r] = OwnedBytes(segments, static_cast<int>(r), comm.size());
      total += owned[r];
    }
    const int64_t own_bytes = owned[static_cast<size_t>(comm.rank())];
    std::fill(incoming.begin(), incoming.end(), own_bytes);
    // `outgoing` carries slices by owner on the first hop, the gathered chunks on the second.
    const auto outgoing = scratch.Get<uint8_t>(kScratchExchange0, static_cast<size_t>(total));
    const auto slices = scratch.Get<uint8_t>(kScratchExchange1, static_cast<size_t>(own_bytes) * n);
    {
      ScopedTimer timer(&times->exchange_ms);
      PackByOwner(segments, comm.size(), outgoing);
      const auto ticket =
          comm.StartAllToAllV(outgoing, owned, slices, incoming, {tag.step, tag.bucket, "scatter"});
      TW_CO_RETURN_IF_ERROR(co_await *ticket);
    }
    int64_t own_begin = 0;
    for (int r = 0; r < comm.rank(); ++r) own_begin += owned[static_cast<size_t>(r)];
    const MutableByteSpan own =
        outgoing.subspan(static_cast<size_t>(own_begin), static_cast<size_t>(own_bytes));
    {
      ScopedTimer timer(&times->decode_ms);
      TW_CO_RETURN_IF_ERROR(AverageOwn(segments, slices, comm, scratch, own));
    }
    {
      ScopedTimer timer(&times->exchange_ms);
      const auto ticket =
          comm.StartAllGatherV(own, owned, outgoing, {tag.step, tag.bucket, "gather"});
      TW_CO_RETURN_IF_ERROR(co_await *ticket);
    }
    ScopedTimer timer(&times->decode_ms);
    co_return DecodeAll(segments, outgoing, owned, lengths.last(n));
  }

 private:
  static void PackByOwner(std::span<const Segment> segments, int n, MutableByteSpan out) {
    uint8_t* to = out.data();
    Together together;
    for (int owner = 0; owner < n; ++owner) {
      for (const Segment& segment : segments) {
        const Chunk chunk = ChunkOf(segment, owner, n);
        if (chunk.bytes == 0) continue;
        together.Next();
        CopyBytes(to, segment.body.data() + chunk.byte_begin, static_cast<size_t>(chunk.bytes));
        to += chunk.bytes;
      }
    }
  }

  // The mean of the own chunks over ranks, encoded again into `own`.
  static Status AverageOwn(std::span<const Segment> segments, ByteSpan slices,
                           const Communicator& comm, Workspace& scratch, MutableByteSpan own) {
    const int n = comm.size();
    const float scale = 1.0f / static_cast<float>(n);
    size_t at = 0;
    Together together;
    for (const Segment& segment : segments) {
      const Chunk chunk = ChunkOf(segment, comm.rank(), n);
      if (chunk.count == 0) continue;
      const size_t bytes = static_cast<size_t>(chunk.bytes);
      together.Next();
      const auto mean = scratch.Get<float>(kScratchExchange2, static_cast<size_t>(chunk.count));
      ZeroBytes(mean.data(), mean.size_bytes());
      CodecContext context = segment.context;
      context.offset = chunk.begin;
      for (int r = 0; r < n; ++r) {
        context.rank = r;
        const ByteSpan slice = slices.subspan(static_cast<size_t>(r) * own.size() + at, bytes);
        TW_RETURN_IF_ERROR(Name(segment.codec->DecodeAdd(slice, scale, context, mean), r, segment));
      }
      context.rank = comm.rank();
      context.second_hop = true;
      const MessageView message = segment.hop
                                      ? MessageView{HopMemory(segment, chunk, n), mean.data(), 1.0f}
                                      : MessageView{mean, nullptr, 1.0f};
      TW_ASSIGN_OR_RETURN(
          const int64_t written,
          segment.codec->EncodeRound(0, {}, message, context, own.subspan(at, bytes)));
      TW_CHECK_EQ(written, chunk.bytes);
      at += bytes;
    }
    return OkStatus();
  }

  // `all` is every owner's chunks, owned[r] bytes of rank r; `next` is scratch.
  static Status DecodeAll(std::span<const Segment> segments, ByteSpan all,
                          std::span<const int64_t> owned, std::span<int64_t> next) {
    const int n = static_cast<int>(owned.size());
    std::exclusive_scan(owned.begin(), owned.end(), next.begin(), int64_t{0});
    Together together;
    for (const Segment& segment : segments) {
      together.Next();
      for (int owner = 0; owner < n; ++owner) {
        const Chunk chunk = ChunkOf(segment, owner, n);
        if (chunk.count == 0) continue;
        CodecContext context = segment.context;
        context.offset = chunk.begin;
        context.second_hop = true;
        TensorView mean = segment.mean;
        mean.data = static_cast<uint8_t*>(mean.data) + chunk.begin * DTypeBytes(mean.dtype);
        mean.numel = chunk.count;
        int64_t& at = next[static_cast<size_t>(owner)];
        const ByteSpan body =
            all.subspan(static_cast<size_t>(at), static_cast<size_t>(chunk.bytes));
        TW_RETURN_IF_ERROR(
            Name(segment.codec->DecodeAddAny(body, 1.0f, context, mean), owner, segment));
        at += chunk.bytes;
      }
    }
    return OkStatus();
  }
};

TW_REGISTER(Exchange, reencode, 0, NoConfig, ReencodeExchange::Create,
            "chunks scattered, averaged, encoded again and gathered: both hops compressed");

}  // namespace
}  // namespace tw
