// Sum exchange (Merge::kSum): bodies add up element by element.
//
//   pieces          the bodies of all segments are one flat buffer, cut into a few pieces that go
//                   through the two phases one behind the other: while the next is scattered, the
//                   last is added and gathered
//   reduce-scatter  a piece is cut into n chunks of nearly equal length; every rank gets
//                   everybody's part of its own chunk and adds the n terms of each element IN RANK
//                   ORDER
//   all-gather      the summed chunks go back to everybody
//   hops            in hop i of a phase every rank sends to rank + i and receives from rank - i:
//                   each link carries one long message each way. (All n - 1 at once meet at the
//                   receivers' links: 0.80 of a rate-limited link at 4 hosts, where hops reach the
//                   figure in docs/benchmarks.md.) Short hops follow each other without waiting.
//
// Why not MPI_Allreduce: its order of additions changes with buffer size and algorithm. Here the
// order is that of the ranks, whatever the pieces and chunks: 1 bucket or 20 give the same bits.
// Types and rounding: flat_sum.h. No frames travel: what a segment is was agreed before step 1.
// State: none.

#include <algorithm>
#include <array>
#include <cstring>

#include "comm/flat_sum.h"
#include "core/api/exchange.h"
#include "core/base/clock.h"

namespace tw {
namespace {

constexpr size_t kMaxPieces = 8;
// Smaller pieces cost more messages than their overlap saves.
constexpr int64_t kMinPieceBytes = 256 << 10;
// Hops under way at once: two, so that no link waits for the next hop to be posted, and more while
// all together are shorter than this.
constexpr size_t kFewHops = 2;
constexpr size_t kMostHops = 16;
constexpr size_t kWindowBytes = 256 << 10;

// A message each way between this rank and two others, or between it and one.
struct Hop {
  ByteSpan send;
  MutableByteSpan recv;
  int to = 0;
  int from = 0;
  const char* what = "";
};

// Hops under way, oldest first.
class Window {
 public:
  Window(Communicator* comm, const OpTag& tag, std::span<int64_t> lengths)
      : comm_(comm), tag_(tag), lengths_(lengths) {}
  static size_t LengthsFor(int ranks) { return 2 * kMostHops * static_cast<size_t>(ranks); }

  bool empty() const { return count_ == 0; }
  bool Full(const Hop& next) const {
    return count_ == kMostHops ||
           (count_ >= kFewHops && bytes_ + next.send.size() + next.recv.size() > kWindowBytes);
  }
  void Start(const Hop& hop) {
    const size_t slot = (first_ + count_++) % kMostHops, n = static_cast<size_t>(comm_->size());
    const auto sizes = lengths_.subspan(2 * n * slot, 2 * n);
    std::fill(sizes.begin(), sizes.end(), 0);
    sizes[static_cast<size_t>(hop.to)] = static_cast<int64_t>(hop.send.size());
    sizes[n + static_cast<size_t>(hop.from)] = static_cast<int64_t>(hop.recv.size());
    under_way_[slot] = {comm_->StartAllToAllV(hop.send, sizes.first(n), hop.recv, sizes.subspan(n),
                                              {tag_.step, tag_.bucket, hop.what}),
                        hop.send.size() + hop.recv.size()};
    bytes_ += under_way_[slot].bytes;
  }
  Ticket& oldest() { return *under_way_[first_].ticket; }
  void PopOldest() {
    bytes_ -= under_way_[first_].bytes;
    under_way_[first_] = {};
    first_ = (first_ + 1) % kMostHops;
    --count_;
    ++num_ended_;
  }
  size_t num_ended() const { return num_ended_; }

 private:
  struct UnderWay {
    std::unique_ptr<Ticket> ticket;
    size_t bytes = 0;
  };
  Communicator* comm_;
  OpTag tag_;
  std::span<int64_t> lengths_;
  std::array<UnderWay, kMostHops> under_way_;
  size_t first_ = 0, count_ = 0, bytes_ = 0, num_ended_ = 0;
};

class SumExchange : public Exchange {
 public:
  static StatusOr<std::unique_ptr<Exchange>> Create(const NoConfig&) {
    return std::make_unique<SumExchange>();
  }

  Merge merge() const override { return Merge::kSum; }

  Async Start(ExchangeCall call) const override {
    if (call.send.empty()) co_return OkStatus();
    if (call.comm->size() > 1) TW_CO_RETURN_IF_ERROR(co_await SumOverRanks(call));
    if (!call.last_round) co_return OkStatus();
    ScopedTimer timer(&call.times->decode_ms);
    co_return DecodeSums(call.segments, call.comm->size());
  }

 private:
  // One piece of the flat buffer.
  class Piece {
   public:
    // Elements begin .. end of `flat`; `parts` has room for n chunks.
    Piece(MutableByteSpan flat, int64_t begin, int64_t end, int64_t element, int ranks, int rank)
        : flat_(flat), begin_(begin), end_(end), element_(element), ranks_(ranks), rank_(rank) {}

    MutableByteSpan Chunk(int r) const {
      return flat_.subspan(ChunkBegin(r), ChunkBegin(r + 1) - ChunkBegin(r));
    }
    size_t own_begin() const { return ChunkBegin(rank_); }
    size_t parts_bytes() const { return Chunk(rank_).size() * static_cast<size_t>(ranks_); }
    MutableByteSpan Part(MutableByteSpan parts, int r) const {
      const size_t bytes = Chunk(rank_).size();
      return parts.subspan(static_cast<size_t>(r) * bytes, bytes);
    }

   private:
    size_t ChunkBegin(int r) const {
      return static_cast<size_t>((begin_ + (end_ - begin_) * r / ranks_) * element_);
    }
    MutableByteSpan flat_;
    int64_t begin_, end_, element_;
    int ranks_, rank_;
  };

  static Async SumOverRanks(ExchangeCall call) {
    const int n = call.comm->size(), rank = call.comm->rank();
    const int64_t element = DTypeBytes(SumType(call.segments));
    TW_CHECK_EQ(static_cast<int64_t>(call.send.size()) % element, 0);
    const int64_t total = static_cast<int64_t>(call.send.size()) / element;
    const int count = static_cast<int>(std::clamp<int64_t>(
        static_cast<int64_t>(call.send.size()) / kMinPieceBytes, 1, kMaxPieces));
    const auto piece = [&](int p) {
      return Piece(call.send, total * p / count, total * (p + 1) / count, element, n, rank);
    };
    // The parts of the piece being scattered and of the one before it.
    size_t room = 0;
    for (int p = 0; p < count; ++p) room = std::max(room, piece(p).parts_bytes());
    const auto parts = call.scratch->Get<uint8_t>(kScratchExchange0, 2 * room);
    const auto parts_of = [&](int p) {
      return parts.subspan(static_cast<size_t>(p % 2) * room, piece(p).parts_bytes());
    };
    Window window(call.comm, call.tag,
                  call.scratch->Get<int64_t>(kScratchExchange3, Window::LengthsFor(n)));
    const double start = NowMs();
    double adding_ms = 0;
    for (int p = 0; p <= count; ++p) {
      for (int i = 1; i < n && p < count; ++i) {  // scatter piece p
        const int to = (rank + i) % n, from = (rank - i + n) % n;
        const Hop hop{piece(p).Chunk(to), piece(p).Part(parts_of(p), from), to, from,
                      "reduce-scatter"};
        while (window.Full(hop)) {
          TW_CO_RETURN_IF_ERROR(co_await window.oldest());
          window.PopOldest();
        }
        window.Start(hop);
      }
      if (p == 0) continue;
      // Add and gather piece p - 1 once it is here. Phases follow each other as S0 S1 G0 S2 G1 ...
      const int phases = std::max(1, 2 * (p - 1));
      const size_t hops_before = static_cast<size_t>((n - 1) * phases);
      while (window.num_ended() < hops_before) {
        TW_CO_RETURN_IF_ERROR(co_await window.oldest());
        window.PopOldest();
      }
      const Piece done = piece(p - 1);
      {
        ScopedTimer timer(&adding_ms);
        const MutableByteSpan own = done.Chunk(rank), mine = done.Part(parts_of(p - 1), rank);
        if (!own.empty()) std::memcpy(mine.data(), own.data(), own.size());
        AddInRankOrder(call.segments, done.own_begin(), parts_of(p - 1), own);
      }
      for (int i = 1; i < n; ++i) {
        const int to = (rank + i) % n, from = (rank - i + n) % n;
        const Hop hop{done.Chunk(rank), done.Chunk(from), to, from, "all-gather"};
        while (window.Full(hop)) {
          TW_CO_RETURN_IF_ERROR(co_await window.oldest());
          window.PopOldest();
        }
        window.Start(hop);
      }
    }
    while (!window.empty()) {
      TW_CO_RETURN_IF_ERROR(co_await window.oldest());
      window.PopOldest();
    }
    call.times->decode_ms += adding_ms;
    call.times->exchange_ms += NowMs() - start - adding_ms;
    co_return OkStatus();
  }
};

TW_REGISTER(Exchange, sum, 0, NoConfig, SumExchange::Create,
            "bodies added over ranks in rank order: reduce-scatter, all-gather");

}  // namespace
}  // namespace tw
