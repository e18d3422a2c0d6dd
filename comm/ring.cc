// Sum exchange round a ring (Merge::kSum): every rank sends to rank + 1 and to nobody else.
//
//   chunks    every body is cut into blocks of 1024 elements; block b of parameter p is in chunk
//             (b + p) % n, whatever bucket it travels in. Chunks are packed, one after the other
//   reduce    chunk c sets out from rank c; each rank adds its own terms and passes it on, until
//             rank c - 1 has the sum
//   gather    the sums go round once more
//   messages  a chunk goes in several, one behind the other: while the last are on their way, the
//             first have been added and passed on
//
// The terms of an element are added in the order c, c + 1 ... c - 1: a function of parameter,
// offset and number of ranks only, so 1 bucket or 20 give the same bits. They are not those of the
// exchange `sum`, which adds in rank order. Bytes are the same.
//
// Why: on a slow link one stream that never stops keeps the link full, where n - 1 streams that
// meet at their receivers do not end together: at 4 hosts 0.9 of the link and more, against 0.8.
// The price is 2 (n - 1) steps that wait for each other.
//
// What a ring cannot add goes through `sum`: types that are summed in a wider one and rounded once
// (fp16, bf16), integers, largest instead of sums, and fewer than three ranks. State: none.

#include <algorithm>
#include <array>
#include <optional>

#include "comm/flat_sum.h"
#include "core/api/exchange.h"
#include "core/base/clock.h"
#include "core/base/device.h"

namespace tw {
namespace {

constexpr int64_t kBlockElements = 1024;
constexpr int64_t kMessageBytes = 128 << 10;
constexpr int64_t kMaxMessages = 32;  // of a chunk

int64_t MessagesOf(int64_t chunk_bytes) {
  return std::clamp<int64_t>(chunk_bytes / kMessageBytes, 1, kMaxMessages);
}

// The blocks of a chunk in the order in which they are packed: visit(segment, block's bytes).
template <class Visit>
void ForEachBlock(std::span<Segment> segments, int64_t element, int chunk, int ranks,
                  Visit&& visit) {
  const size_t block = static_cast<size_t>(kBlockElements * element);
  const int64_t n = ranks;
  for (Segment& segment : segments) {
    const int64_t first = ((chunk - int64_t{segment.context.spec->id}) % n + n) % n;
    for (size_t at = static_cast<size_t>(first) * block; at < segment.body.size();
         at += static_cast<size_t>(n) * block) {
      visit(segment, segment.body.subspan(at, std::min(block, segment.body.size() - at)));
    }
  }
}

// One bucket's chunks, packed.
class Packed {
 public:
  explicit Packed(const ExchangeCall& call)
      : call_(call),
        type_(SumType(call.segments, call.round)),
        element_(DTypeBytes(type_)),
        ranks_(call.comm->size()) {
    const size_t n = static_cast<size_t>(ranks_);
    begins_ = call.scratch->GetHost<int64_t>(kScratchExchange2, n + 1);
    begins_[0] = 0;
    int64_t largest = 0;
    for (int c = 0; c < ranks_; ++c) {
      int64_t bytes = 0;
      ForEachBlock(call.segments, element_, c, ranks_, [&](Segment&, MutableByteSpan block) {
        bytes += static_cast<int64_t>(block.size());
      });
      begins_[static_cast<size_t>(c) + 1] = begins_[static_cast<size_t>(c)] + bytes;
      largest = std::max(largest, bytes);
    }
    messages_ = MessagesOf(largest);
    bytes_ = call.scratch->Get<uint8_t>(kScratchExchange0, call.send.size());
    slot_bytes_ = (largest / element_ / messages_ + 1) * element_;
    arrived_ =
        call.scratch->Get<uint8_t>(kScratchExchange1, static_cast<size_t>(slot_bytes_ * messages_));
  }

  int64_t messages() const { return messages_; }
  // Message m of a chunk, whose number is taken modulo n, and where it arrives to be added: chunks
  // differ in length, so every message has a place of its own.
  MutableByteSpan Part(int chunk, int64_t m) const { return Cut(Chunk(Wrap(chunk)), m); }
  MutableByteSpan Arrived(int chunk, int64_t m) const {
    return arrived_.subspan(static_cast<size_t>(slot_bytes_ * m), Part(chunk, m).size());
  }

  void Pack(int chunk) const {
    uint8_t* to = Chunk(Wrap(chunk)).data();
    Together together;
    ForEachBlock(call_.segments, element_, Wrap(chunk), ranks_,
                 [&](Segment&, MutableByteSpan block) {
                   together.Next();
                   CopyBytes(to, block.data(), block.size());
                   to += block.size();
                 });
  }

  // Part <- Part + what arrived.
  void Add(int chunk, int64_t m) const { AddTerm(type_, Part(chunk, m), Arrived(chunk, m)); }

  // A chunk of sums (of lossless codecs: means) back into the bodies.
  void Unpack(int chunk) const {
    const uint8_t* from = Chunk(Wrap(chunk)).data();
    Together together;
    ForEachBlock(call_.segments, element_, Wrap(chunk), ranks_,
                 [&](Segment& segment, MutableByteSpan block) {
                   together.Next();
                   CopyBytes(block.data(), from, block.size());
                   from += block.size();
                   if (segment.codec->traits().lossless) Average(type_, block, ranks_);
                 });
  }

 private:
  int Wrap(int chunk) const { return ((chunk % ranks_) + ranks_) % ranks_; }
  MutableByteSpan Chunk(int c) const {
    const size_t begin = static_cast<size_t>(begins_[static_cast<size_t>(c)]);
    return bytes_.subspan(begin, static_cast<size_t>(begins_[static_cast<size_t>(c) + 1]) - begin);
  }
  MutableByteSpan Cut(MutableByteSpan chunk, int64_t m) const {
    const int64_t elements = static_cast<int64_t>(chunk.size()) / element_;
    const int64_t begin = elements * m / messages_, end = elements * (m + 1) / messages_;
    return chunk.subspan(static_cast<size_t>(begin * element_),
                         static_cast<size_t>((end - begin) * element_));
  }
  const ExchangeCall& call_;
  const DType type_;
  const int64_t element_;
  const int ranks_;
  int64_t messages_ = 1, slot_bytes_ = 0;
  std::span<int64_t> begins_;
  MutableByteSpan bytes_, arrived_;
};

class RingExchange : public Exchange {
 public:
  static StatusOr<std::unique_ptr<Exchange>> Create(const NoConfig&) {
    return std::make_unique<RingExchange>();
  }

  Merge merge() const override { return Merge::kSum; }

  ExchangeWork Work(const CompressorTraits&, int64_t payload_bytes, int ranks) const override {
    if (ranks == 1) return {};
    const double steps = 2.0 * (ranks - 1);
    return {.waits = steps,
            .messages = steps * static_cast<double>(MessagesOf(payload_bytes / ranks))};
  }

  Async Start(ExchangeCall call) const override {
    if (call.send.empty()) co_return OkStatus();
    if (!GoesRound(call)) co_return co_await FindExchange(Merge::kSum)->Start(call);
    TW_CO_RETURN_IF_ERROR(co_await GoRound(call));
    if (!call.last_round) co_return OkStatus();
    ScopedTimer timer(&call.times->decode_ms);
    co_return DecodeSums(call.segments, call.comm->size());
  }

 private:
  static bool GoesRound(const ExchangeCall& call) {
    return call.comm->size() > 2 && PartialSumsTravel(call.segments, call.round);
  }

  static Async GoRound(ExchangeCall call) {
    const int n = call.comm->size(), r = call.comm->rank();
    ExchangeTimes& times = *call.times;
    std::optional<Packed> chunks;
    {
      ScopedTimer timer(&times.decode_ms);
      chunks.emplace(call);
      chunks->Pack(r);
    }
    // Step s sends chunk r - s and receives chunk r - s - 1; while it is on its way, what the next
    // step needs is packed, or what has come round is unpacked.
    std::array<std::unique_ptr<Ticket>, kMaxMessages> tickets;
    const int64_t messages = chunks->messages();
    for (int s = 0; s < 2 * (n - 1); ++s) {
      const bool sums = s < n - 1;
      for (int64_t m = 0; m < messages; ++m) {
        auto& ticket = tickets[static_cast<size_t>(m)];
        if (s > 0) {
          ScopedTimer timer(&times.exchange_ms);
          TW_CO_RETURN_IF_ERROR(co_await *ticket);
        }
        if (s > 0 && s < n) {
          ScopedTimer timer(&times.decode_ms);
          chunks->Add(r - s, m);
        }
        ScopedTimer timer(&times.exchange_ms);
        ticket = PassOn(call, chunks->Part(r - s, m),
                        sums ? chunks->Arrived(r - s - 1, m) : chunks->Part(r - s - 1, m), m);
      }
      ScopedTimer timer(&times.decode_ms);
      sums ? chunks->Pack(r - s - 1) : chunks->Unpack(r - s);
    }
    for (int64_t m = 0; m < messages; ++m) {
      ScopedTimer timer(&times.exchange_ms);
      TW_CO_RETURN_IF_ERROR(co_await *tickets[static_cast<size_t>(m)]);
    }
    ScopedTimer timer(&times.decode_ms);
    chunks->Unpack(r + 2);
    co_return OkStatus();
  }

  // Sends to rank + 1 and receives from rank - 1. The sizes of message m's last step are free.
  static std::unique_ptr<Ticket> PassOn(const ExchangeCall& call, ByteSpan send,
                                        MutableByteSpan receive, int64_t m) {
    const size_t n = static_cast<size_t>(call.comm->size());
    const size_t r = static_cast<size_t>(call.comm->rank());
    const auto sizes =
        call.scratch->GetHost<int64_t>(kScratchExchange3, 2 * n * static_cast<size_t>(kMaxMessages))
            .subspan(2 * n * static_cast<size_t>(m), 2 * n);
    std::fill(sizes.begin(), sizes.end(), 0);
    sizes[(r + 1) % n] = static_cast<int64_t>(send.size());
    sizes[n + (r + n - 1) % n] = static_cast<int64_t>(receive.size());
    return call.comm->StartAllToAllV(send, sizes.first(n), receive, sizes.subspan(n),
                                     {call.tag.step, call.tag.bucket, "ring"});
  }
};

TW_REGISTER(Exchange, ring, 0, NoConfig, RingExchange::Create,
            "bodies added on their way round a ring: every rank sends to the next one only");

}  // namespace
}  // namespace tw
