// Sum exchange (Merge::kSum): bodies add up element by element.
//
//   pieces          the bodies of all segments are one flat buffer, cut into a few pieces that go
//                   through the two hops one behind the other: while the last are scattered, the
//                   first are added and gathered
//   reduce-scatter  a piece is cut into n chunks of nearly equal length; every rank gets
//                   everybody's part of its own chunk and adds the n terms of each element IN RANK
//                   ORDER
//   all-gather      the summed chunks go back to everybody
//
// Why not MPI_Allreduce: its order of additions changes with buffer size and algorithm. Here the
// order is that of the ranks, whatever the pieces and chunks: 1 bucket or 20 give the same bits.
// Types and rounding: flat_sum.h. No frames travel: what a segment is was agreed before step 1.
// State: none.

#include <algorithm>
#include <array>

#include "comm/flat_sum.h"
#include "core/api/exchange.h"
#include "core/base/clock.h"

namespace tw {
namespace {

constexpr size_t kMaxPieces = 8;
// Smaller pieces cost more messages than their overlap saves.
constexpr int64_t kMinPieceBytes = 256 << 10;

class SumExchange : public Exchange {
 public:
  static StatusOr<std::unique_ptr<Exchange>> Create(const NoConfig&) {
    return std::make_unique<SumExchange>();
  }

  Merge merge() const override { return Merge::kSum; }
  const Fold* fold() const override { return SumFold(); }

  ExchangeWork Work(const CompressorTraits& traits, int64_t payload_bytes,
                    int ranks) const override {
    ExchangeWork work = Exchange::Work(traits, payload_bytes, ranks);
    work.messages *= static_cast<double>(PieceCount(payload_bytes));
    return work;
  }

  Async Start(ExchangeCall call) const override {
    if (call.send.empty()) co_return OkStatus();
    if (call.comm->size() > 1) TW_CO_RETURN_IF_ERROR(co_await SumOverRanks(call));
    if (!call.last_round) co_return OkStatus();
    ScopedTimer timer(&call.times->decode_ms);
    co_return DecodeSums(call.segments, call.comm->size());
  }

 private:
  static size_t PieceCount(int64_t bytes) {
    return static_cast<size_t>(std::clamp<int64_t>(bytes / kMinPieceBytes, 1, kMaxPieces));
  }

  // One piece on its way.
  struct Piece {
    MutableByteSpan bytes, parts, own;
    size_t own_begin = 0;  // in the flat buffer
    std::span<int64_t> chunk_bytes, own_bytes;
    std::unique_ptr<Ticket> scatter, gather;
  };

  static Async SumOverRanks(ExchangeCall call) {
    Communicator& comm = *call.comm;
    const int64_t element = DTypeBytes(SumType(call.segments, call.round));
    TW_CHECK_EQ(static_cast<int64_t>(call.send.size()) % element, 0);
    std::array<Piece, kMaxPieces> pieces;
    const size_t count = PieceCount(static_cast<int64_t>(call.send.size()));
    Cut(call, element, {pieces.data(), count});
    ExchangeTimes& times = *call.times;
    {
      ScopedTimer timer(&times.exchange_ms);
      for (Piece& piece : std::span(pieces.data(), count)) {
        piece.scatter =
            comm.StartAllToAllV(piece.bytes, piece.chunk_bytes, piece.parts, piece.own_bytes,
                                {call.tag.step, call.tag.bucket, "reduce-scatter"});
      }
    }
    for (Piece& piece : std::span(pieces.data(), count)) {
      {
        ScopedTimer timer(&times.exchange_ms);
        TW_CO_RETURN_IF_ERROR(co_await *piece.scatter);
      }
      {
        ScopedTimer timer(&times.decode_ms);
        AddInRankOrder(call.segments, call.round, piece.own_begin, piece.parts, piece.own,
                       *call.scratch);
      }
      ScopedTimer timer(&times.exchange_ms);
      piece.gather = comm.StartAllGatherV(piece.own, piece.chunk_bytes, piece.bytes,
                                          {call.tag.step, call.tag.bucket, "all-gather"});
    }
    ScopedTimer timer(&times.exchange_ms);
    for (size_t p = 0; p < count; ++p) TW_CO_RETURN_IF_ERROR(co_await *pieces[p].gather);
    co_return OkStatus();
  }

  // Lays out the pieces' memory.
  static void Cut(const ExchangeCall& call, int64_t element, std::span<Piece> pieces) {
    const int n = call.comm->size();
    const size_t ranks = static_cast<size_t>(n);
    const int64_t total = static_cast<int64_t>(call.send.size()) / element;
    const int64_t count = static_cast<int64_t>(pieces.size());
    const auto lengths =
        call.scratch->GetHost<int64_t>(kScratchExchange3, 2 * ranks * pieces.size());
    const auto piece_begin = [&](int64_t p) { return total * p / count; };
    const auto chunk_begin = [&](int64_t p, int r) {
      return piece_begin(p) + (piece_begin(p + 1) - piece_begin(p)) * r / n;
    };
    size_t room = 0;
    for (int64_t p = 0; p < count; ++p) {
      Piece& piece = pieces[static_cast<size_t>(p)];
      piece.bytes =
          call.send.subspan(static_cast<size_t>(piece_begin(p) * element),
                            static_cast<size_t>((piece_begin(p + 1) - piece_begin(p)) * element));
      piece.own_begin = static_cast<size_t>(chunk_begin(p, call.comm->rank()) * element);
      piece.own = call.send.subspan(
          piece.own_begin,
          static_cast<size_t>(chunk_begin(p, call.comm->rank() + 1) * element) - piece.own_begin);
      piece.chunk_bytes = lengths.subspan(2 * ranks * static_cast<size_t>(p), ranks);
      piece.own_bytes = lengths.subspan(2 * ranks * static_cast<size_t>(p) + ranks, ranks);
      for (int r = 0; r < n; ++r) {
        piece.chunk_bytes[static_cast<size_t>(r)] =
            (chunk_begin(p, r + 1) - chunk_begin(p, r)) * element;
        piece.own_bytes[static_cast<size_t>(r)] = static_cast<int64_t>(piece.own.size());
      }
      room += piece.own.size() * ranks;
    }
    uint8_t* parts = call.scratch->Get<uint8_t>(kScratchExchange0, room).data();
    for (Piece& piece : pieces) {
      piece.parts = {parts, piece.own.size() * ranks};
      parts += piece.parts.size();
    }
  }
};

TW_REGISTER(Exchange, sum, 0, NoConfig, SumExchange::Create,
            "bodies added over ranks in rank order: reduce-scatter, all-gather");

}  // namespace
}  // namespace tw
