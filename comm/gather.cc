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

#include <algorithm>

#include "core/api/exchange.h"
#include "core/base/clock.h"
#include "core/base/frame.h"

namespace tw {
namespace {

FrameHeader HeaderOf(const Segment& segment) {
  FrameHeader header;
  header.wire_id = static_cast<uint16_t>(segment.wire_id);
  header.parameter = segment.context.spec->id;
  header.step = segment.context.step;
  header.numel = static_cast<uint64_t>(segment.context.spec->numel());
  return header;
}

class GatherExchange : public Exchange {
 public:
  static StatusOr<std::unique_ptr<Exchange>> Create(const NoConfig&) {
    return std::make_unique<GatherExchange>();
  }

  Merge merge() const override { return Merge::kGather; }
  int64_t header_bytes() const override { return kFrameHeaderBytes; }

  Status Run(std::span<Segment> segments, MutableByteSpan send, int round, bool last_round,
             const OpTag& tag, Communicator& comm, Workspace& scratch,
             ExchangeTimes* times) const override {
    TW_CHECK(last_round);  // bodies of earlier rounds only make sense summed
    const size_t n = static_cast<size_t>(comm.size());
    {
      ScopedTimer timer(&times->decode_ms);
      for (const Segment& segment : segments) {
        TW_CHECK(segment.body.data() >= send.data() + kFrameHeaderBytes);
        WriteFrameHeader(HeaderOf(segment), segment.body, segment.body.data() - kFrameHeaderBytes);
      }
    }
    const auto lengths = scratch.Get<int64_t>(kScratchExchange3, 2 * n);
    const auto sizes = lengths.first(n);
    const auto next = lengths.subspan(n);  // where each rank's next frame starts in `all`
    ByteSpan all = send;
    {
      ScopedTimer timer(&times->exchange_ms);
      TW_RETURN_IF_ERROR(GatherSizes(segments, send, tag, comm, sizes));
      if (n > 1) {
        int64_t total = 0;
        for (const int64_t size : sizes) total += size;
        const auto gathered = scratch.Get<uint8_t>(kScratchExchange0, static_cast<size_t>(total));
        TW_RETURN_IF_ERROR(
            comm.AllGatherV(send, sizes, gathered, {tag.step, tag.bucket, "gather"}));
        all = gathered;
      }
    }
    ScopedTimer timer(&times->decode_ms);
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
        if (!used.ok()) {
          return Annotate(used.status(), "from rank " + std::to_string(r) + ", parameter " +
                                             segment.context.spec->name);
        }
        next[r] += *used;
      }
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

 private:
  static Status GatherSizes(std::span<const Segment> segments, ByteSpan send, const OpTag& tag,
                            Communicator& comm, std::span<int64_t> sizes) {
    const int64_t own = static_cast<int64_t>(send.size());
    std::fill(sizes.begin(), sizes.end(), own);
    const bool known = std::all_of(segments.begin(), segments.end(), [](const Segment& segment) {
      return segment.codec->traits().fixed_size;
    });
    if (comm.size() == 1 || known) return OkStatus();
    TW_ASSIGN_OR_RETURN(const std::vector<int64_t> found,
                        comm.AllGatherInt(own, {tag.step, tag.bucket, "gather of sizes"}));
    for (size_t r = 0; r < sizes.size(); ++r) {
      if (found[r] < 0) return DataLoss("from rank " + std::to_string(r) + ": a negative length");
      sizes[r] = found[r];
    }
    return OkStatus();
  }

  // Adds the frame at the start of `bytes` to the segment's mean; returns its length.
  static StatusOr<int64_t> AddFrame(const Segment& segment, int rank, size_t n, ByteSpan bytes) {
    TW_ASSIGN_OR_RETURN(const Frame frame, ParseFrame(bytes));
    TW_RETURN_IF_ERROR(CheckFrame(frame, HeaderOf(segment)));
    CodecContext context = segment.context;
    context.rank = rank;
    TW_RETURN_IF_ERROR(segment.codec->DecodeAddAny(frame.body, 1.0f / static_cast<float>(n),
                                                   context, segment.mean));
    return frame.total_bytes;
  }
};

TW_REGISTER(Exchange, gather, 0, NoConfig, GatherExchange::Create,
            "framed bodies gathered by all ranks, decoded and added in rank order");

}  // namespace
}  // namespace tw
