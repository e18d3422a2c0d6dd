// Gather exchange (Merge::kGather): everybody gets everybody's framed bodies and adds the decoded
// values in rank order.
//
//   all-gather-v of [frame header | body] [frame header | body] ...   one frame a segment
//   mean = sum over ranks, in rank order, of decode(body) / n
//
// Own frames are decoded from the very bytes that the others get, in their place in the order: all
// ranks form the same sums of the same terms. The lengths are exchanged first unless all codecs
// have a fixed size. Nothing received is trusted: frame, checksum, identity and body are checked,
// and the error names the rank the bytes came from. State: none.
//
// On a device bodies travel bare: the host, which would write and check frames, never sees them.
// What they are was agreed before step 1; the length of each, where not fixed, is gathered over
// control(). The sums are the same.

#include <algorithm>
#include <numeric>

#include "core/api/exchange.h"
#include "core/base/clock.h"
#include "core/base/device.h"
#include "core/kernels/elementwise.h"

namespace tw {
namespace {

FrameHeader HeaderOf(const Segment& segment) {
  return FrameHeaderOf(segment.context, segment.wire_id);
}

// mean += decode(body) / n, as rank (or client) `rank` encoded it. An fp64 mean takes whole bodies
// and is divided at the end, by Divide: a factor in fp32 would leave it an error of 2^-25.
Status AddBody(const Compressor& codec, CodecContext context, ByteSpan body, int rank, int n,
               TensorView mean) {
  context.rank = rank;
  const float share = mean.dtype == DType::kF64 ? 1.0f : 1.0f / static_cast<float>(n);
  return codec.DecodeAddAny(body, share, context, mean);
}
void Divide(TensorView fp64_sum, int n) {
  auto* const values = static_cast<double*>(fp64_sum.data);
  for (int64_t i = 0; i < fp64_sum.numel; ++i) values[i] /= n;
}

class GatherFold : public Fold {
 public:
  Status Add(FoldCall& call, ByteSpan body, int client) const override {
    ++call.added;
    return AddBody(*call.codec, call.context, body, client, call.expected, call.mean);
  }
  Status Finish(FoldCall& call) const override {
    if (call.mean.dtype == DType::kF64) {
      Divide(call.mean, static_cast<int>(call.denominator));
    } else if (call.denominator != call.expected) {
      const double scale = static_cast<double>(call.expected) / call.denominator;
      kernels::Scale(call.mean.f32(), static_cast<float>(scale));
    }
    return OkStatus();
  }
};

class GatherExchange : public Exchange {
 public:
  static StatusOr<std::unique_ptr<Exchange>> Create(const NoConfig&) {
    return std::make_unique<GatherExchange>();
  }

  Merge merge() const override { return Merge::kGather; }
  int64_t header_bytes(Communicator& comm) const override {
    return comm.on_device() ? 0 : kFrameHeaderBytes;
  }
  const Fold* fold() const override {
    static const GatherFold fold;
    return &fold;
  }
  double WireBytes(const TensorSpec&, int64_t payload_bytes, int ranks) const override {
    return static_cast<double>(payload_bytes + kFrameHeaderBytes) * (ranks - 1);
  }

  ExchangeWork Work(const CompressorTraits& traits, int64_t, int ranks) const override {
    if (ranks == 1) return {};
    const double verbs = traits.fixed_size ? 1 : 2;  // lengths first
    return {.waits = verbs, .messages = verbs * (ranks - 1), .decodes = static_cast<double>(ranks)};
  }

  Async Start(ExchangeCall call) const override {
    TW_CHECK(call.last_round);  // bodies of earlier rounds only make sense summed
    Communicator& comm = *call.comm;
    if (comm.on_device()) co_return co_await GatherBare(call);
    const size_t n = static_cast<size_t>(comm.size());
    {
      ScopedTimer timer(&call.times->decode_ms);
      for (const Segment& segment : call.segments) {
        TW_CHECK(segment.body.data() >= call.send.data() + kFrameHeaderBytes);
        WriteFrameHeader(HeaderOf(segment), segment.body, segment.body.data() - kFrameHeaderBytes);
      }
    }
    // Lengths: of what each rank sends; where its next frame starts; its length as bytes to gather.
    const auto lengths = call.scratch->GetHost<int64_t>(kScratchExchange3, 3 * n);
    const auto sizes = lengths.first(n);
    ByteSpan all = call.send;
    if (n > 1) {
      ScopedTimer timer(&call.times->exchange_ms);
      std::fill(sizes.begin(), sizes.end(), static_cast<int64_t>(call.send.size()));
      if (!SizesAreKnown(call.segments)) {
        const auto length_bytes = lengths.subspan(2 * n);
        std::fill(length_bytes.begin(), length_bytes.end(), sizeof(int64_t));
        int64_t& own = sizes[static_cast<size_t>(comm.rank())];
        const auto ticket =
            comm.control().StartAllGatherV(BytesOf({&own, 1}), length_bytes, BytesOf(sizes),
                                           {call.tag.step, call.tag.bucket, "sizes"});
        TW_CO_RETURN_IF_ERROR(co_await *ticket);
        for (size_t r = 0; r < n; ++r) {
          if (sizes[r] < 0) {
            co_return DataLoss("from rank " + std::to_string(r) + ": a negative length");
          }
        }
      }
      int64_t total = 0;
      for (const int64_t size : sizes) total += size;
      const auto gathered =
          call.scratch->Get<uint8_t>(kScratchExchange0, static_cast<size_t>(total));
      const auto ticket = comm.StartAllGatherV(call.send, sizes, gathered,
                                               {call.tag.step, call.tag.bucket, "gather"});
      TW_CO_RETURN_IF_ERROR(co_await *ticket);
      all = gathered;
    } else {
      sizes[0] = static_cast<int64_t>(call.send.size());
    }
    ScopedTimer timer(&call.times->decode_ms);
    co_return AddAll(call.segments, all, sizes, lengths.subspan(n, n));
  }

 private:
  // The same without frames, of a device's memory.
  static Async GatherBare(ExchangeCall call) {
    Communicator& comm = *call.comm;
    const size_t n = static_cast<size_t>(comm.size()), count = call.segments.size();
    const size_t me = static_cast<size_t>(comm.rank());
    // Lengths: of rank r's body of segment s at r * count + s; of what each rank sends; of the
    // lengths that each rank gathers.
    const auto numbers = call.scratch->GetHost<int64_t>(kScratchExchange3, n * (count + 2));
    const auto lengths = numbers.first(n * count);
    const auto sizes = numbers.subspan(n * count, n);
    const bool known = SizesAreKnown(call.segments);
    for (size_t r = 0; r < n; ++r) {
      if (r != me && !known) continue;
      for (size_t s = 0; s < count; ++s) {
        lengths[r * count + s] = static_cast<int64_t>(call.segments[s].body.size());
      }
    }
    if (n > 1 && !known) {
      ScopedTimer timer(&call.times->exchange_ms);
      const auto length_bytes = numbers.last(n);
      std::fill(length_bytes.begin(), length_bytes.end(), count * sizeof(int64_t));
      const auto ticket = comm.control().StartAllGatherV(
          BytesOf(lengths.subspan(me * count, count)), length_bytes, BytesOf(lengths),
          {call.tag.step, call.tag.bucket, "sizes"});
      TW_CO_RETURN_IF_ERROR(co_await *ticket);
      TW_CO_RETURN_IF_ERROR(CheckLengths(call.segments, lengths));
    }
    int64_t total = 0;
    for (size_t r = 0; r < n; ++r) {
      const auto of_rank = lengths.subspan(r * count, count);
      sizes[r] = std::accumulate(of_rank.begin(), of_rank.end(), int64_t{0});
      total += sizes[r];
    }
    ByteSpan all = call.send;
    if (n > 1) {
      ScopedTimer timer(&call.times->exchange_ms);
      const auto gathered =
          call.scratch->Get<uint8_t>(kScratchExchange0, static_cast<size_t>(total));
      const auto ticket = comm.StartAllGatherV(call.send, sizes, gathered,
                                               {call.tag.step, call.tag.bucket, "gather"});
      TW_CO_RETURN_IF_ERROR(co_await *ticket);
      all = gathered;
    }
    ScopedTimer timer(&call.times->decode_ms);
    co_return AddBare(call.segments, all, lengths, sizes);
  }

  static Status CheckLengths(std::span<const Segment> segments, std::span<const int64_t> lengths) {
    for (size_t i = 0; i < lengths.size(); ++i) {
      const Segment& segment = segments[i % segments.size()];
      const TensorSpec& spec = *segment.context.spec;
      if (lengths[i] < 0 || lengths[i] > segment.codec->MaxEncodedBytes(spec, 0)) {
        return DataLoss("from rank " + std::to_string(i / segments.size()) + ", parameter " +
                        spec.name + ": a body of " + std::to_string(lengths[i]) + " bytes");
      }
    }
    return OkStatus();
  }

  // `all` is every rank's bodies; sizes[r], the bytes of rank r's, become where its next one is.
  static Status AddBare(std::span<const Segment> segments, ByteSpan all,
                        std::span<const int64_t> lengths, std::span<int64_t> sizes) {
    const size_t n = sizes.size();
    std::exclusive_scan(sizes.begin(), sizes.end(), sizes.begin(), int64_t{0});
    Together together;
    for (size_t s = 0; s < segments.size(); ++s) {
      const Segment& segment = segments[s];
      TW_CHECK(segment.mean.dtype != DType::kF64);  // not on a device
      together.Next();
      for (size_t r = 0; r < n; ++r) {
        const int64_t length = lengths[r * segments.size() + s];
        const Status status =
            AddBody(*segment.codec, segment.context,
                    all.subspan(static_cast<size_t>(sizes[r]), static_cast<size_t>(length)),
                    static_cast<int>(r), static_cast<int>(n), segment.mean);
        if (!status.ok()) return FromRank(status, r, segment);
        sizes[r] += length;
      }
    }
    return OkStatus();
  }

  static Status FromRank(const Status& error, size_t rank, const Segment& segment) {
    return Annotate(
        error, "from rank " + std::to_string(rank) + ", parameter " + segment.context.spec->name);
  }
  static MutableByteSpan BytesOf(std::span<int64_t> values) {
    return {reinterpret_cast<uint8_t*>(values.data()), values.size_bytes()};
  }
  static bool SizesAreKnown(std::span<const Segment> segments) {
    return std::all_of(segments.begin(), segments.end(),
                       [](const Segment& segment) { return segment.codec->traits().fixed_size; });
  }

  // `all` is every rank's frames, sizes[r] bytes of rank r; `next` is scratch.
  static Status AddAll(std::span<const Segment> segments, ByteSpan all,
                       std::span<const int64_t> sizes, std::span<int64_t> next) {
    const size_t n = sizes.size();
    int64_t begin = 0;
    for (size_t r = 0; r < n; ++r) {
      next[r] = begin;
      begin += sizes[r];
    }
    for (const Segment& segment : segments) {
      int64_t end = 0;
      for (size_t r = 0; r < n; ++r) {
        end += sizes[r];
        const auto used =
            AddFrame(segment, static_cast<int>(r), n,
                     all.subspan(static_cast<size_t>(next[r]), static_cast<size_t>(end - next[r])));
        if (!used.ok()) return FromRank(used.status(), r, segment);
        next[r] += *used;
      }
      if (segment.mean.dtype == DType::kF64) Divide(segment.mean, static_cast<int>(n));
    }
    int64_t end = 0;
    for (size_t r = 0; r < n; ++r) {
      end += sizes[r];
      if (next[r] != end) {
        return DataLoss("from rank " + std::to_string(r) + ": " + std::to_string(end - next[r]) +
                        " bytes after the last frame");
      }
    }
    return OkStatus();
  }

  // Adds the frame at the start of `bytes` to the segment's mean; returns its length.
  static StatusOr<int64_t> AddFrame(const Segment& segment, int rank, size_t n, ByteSpan bytes) {
    TW_ASSIGN_OR_RETURN(const Frame frame, ParseFrame(bytes));
    TW_RETURN_IF_ERROR(CheckFrame(frame, HeaderOf(segment)));
    TW_RETURN_IF_ERROR(AddBody(*segment.codec, segment.context, frame.body, rank,
                               static_cast<int>(n), segment.mean));
    return frame.total_bytes;
  }
};

TW_REGISTER(Exchange, gather, 0, NoConfig, GatherExchange::Create,
            "framed bodies gathered by all ranks, decoded and added in rank order");

}  // namespace
}  // namespace tw
