// Sum exchange by halves (Merge::kSum): recursive halving, then recursive doubling, on the largest
// power of two p of ranks.
//
//   fold      where n > p, the odd ones of the first 2 (n - p) ranks give their bodies to the rank
//             before them, and get the means back at the end
//   halving   ranks at distance p/2, p/4 ... 1 swap halves of what they still hold and add; in the
//             end each holds the sum of 1/p of the elements
//   doubling  the same way back, with sums
//
// The terms of an element are added as a tree that the distances alone give: ((0 + 4) + (2 + 6)) +
// ((1 + 5) + (3 + 7)) at eight ranks, wherever an element lies. An addition does not depend on the
// order of its two terms, so 1 bucket or 20 give the same bits (a NaN's payload apart). They are
// not those of `sum` and `ring`. Bytes are the same at powers of two; else the ranks that take
// others' bodies send one body more.
//
// Why: 2 log2 n steps that wait for each other, where a ring has 2 (n - 1), and 2 log2 n messages
// where `sum` sends 2 (n - 1): for many ranks. What cannot be added part by part goes through `sum`
// (flat_sum.h). State: none.

#include <algorithm>
#include <bit>

#include "comm/flat_sum.h"
#include "core/api/exchange.h"
#include "core/base/clock.h"
#include "core/base/device.h"

namespace tw {
namespace {

// Elements [begin, end) of the flat buffer of bodies.
struct Range {
  int64_t begin = 0, end = 0;
};

int Power(int ranks) { return static_cast<int>(std::bit_floor(static_cast<unsigned>(ranks))); }

// Who is who: the ranks that halve and double are numbered 0 .. power - 1.
struct Roles {
  Roles(int rank, int ranks)
      : rank(rank), power(Power(ranks)), extra(ranks - power), paired(rank < 2 * extra) {}

  bool gives() const { return paired && rank % 2 == 1; }
  bool takes() const { return paired && rank % 2 == 0; }
  int number() const { return paired ? rank / 2 : rank - extra; }
  // The other of the pair; of a rank in none itself.
  int beside() const { return !paired ? rank : gives() ? rank - 1 : rank + 1; }
  int RankOf(int number) const { return number < extra ? 2 * number : number + extra; }

  const int rank, power, extra;
  const bool paired;  // with the rank beside it
};

// What number v holds after the swaps at all distances down to `distance`.
Range Held(int64_t total, int power, int v, int distance) {
  Range held{0, total};
  for (int d = power / 2; d >= distance && d > 0; d /= 2) {
    const int64_t middle = held.begin + (held.end - held.begin) / 2;
    (v & d ? held.begin : held.end) = middle;
  }
  return held;
}

class HalvingExchange : public Exchange {
 public:
  static StatusOr<std::unique_ptr<Exchange>> Create(const NoConfig&) {
    return std::make_unique<HalvingExchange>();
  }

  Merge merge() const override { return Merge::kSum; }

  ExchangeWork Work(const CompressorTraits&, int64_t, int ranks) const override {
    if (ranks == 1) return {};
    const double swaps = 2.0 * std::countr_zero(static_cast<unsigned>(Power(ranks)));
    const double steps = swaps + (Power(ranks) < ranks ? 2 : 0);
    return {.waits = steps, .messages = steps};
  }

  double WireBytes(const TensorSpec&, int64_t payload_bytes, int ranks) const override {
    const double power = Power(ranks), bytes = static_cast<double>(payload_bytes);
    return 2 * bytes * (power - 1) / power + (Power(ranks) < ranks ? bytes : 0);
  }

  Async Start(ExchangeCall call) const override {
    if (call.send.empty()) co_return OkStatus();
    if (call.comm->size() < 3 || !PartialSumsTravel(call.segments, call.round)) {
      co_return co_await FindExchange(Merge::kSum)->Start(call);
    }
    TW_CO_RETURN_IF_ERROR(co_await Add(call, Roles(call.comm->rank(), call.comm->size())));
    if (!call.last_round) co_return OkStatus();
    ScopedTimer timer(&call.times->decode_ms);
    co_return DecodeSums(call.segments, call.comm->size());
  }

 private:
  // A verb is every rank's: who has nothing to swap takes part with nothing.
  static Async Add(ExchangeCall call, Roles roles) {
    const DType type = SumType(call.segments, call.round);
    const int64_t element = DTypeBytes(type);
    const int64_t total = static_cast<int64_t>(call.send.size()) / element;
    const MutableByteSpan room = call.scratch->Get<uint8_t>(
        kScratchExchange0,
        roles.takes() ? call.send.size() : static_cast<size_t>((total - total / 2) * element));
    const int v = roles.number();
    // What number `of` holds after the swap at distance d; nothing on a rank that gave all away.
    const auto held = [&](int of, int d) -> MutableByteSpan {
      if (roles.gives()) return {};
      const Range range = Held(total, roles.power, of, d);
      return call.send.subspan(static_cast<size_t>(range.begin * element),
                               static_cast<size_t>((range.end - range.begin) * element));
    };
    const auto partner = [&](int d) { return roles.gives() ? roles.rank : roles.RankOf(v ^ d); };
    const MutableByteSpan all = call.send, none;
    if (roles.extra > 0) {
      TW_CO_RETURN_IF_ERROR(co_await Take(call, type, roles.beside(), roles.gives() ? all : none,
                                          roles.takes() ? all : none, room));
    }
    for (int d = roles.power / 2; d > 0; d /= 2) {
      TW_CO_RETURN_IF_ERROR(
          co_await Take(call, type, partner(d), held(v ^ d, d), held(v, d), room));
    }
    AverageOwn(call, type, held(v, 1));
    ScopedTimer timer(&call.times->exchange_ms);
    for (int d = 1; d < roles.power; d *= 2) {
      const auto swap = Swap(call, partner(d), held(v, d), held(v ^ d, d));
      TW_CO_RETURN_IF_ERROR(co_await *swap);
    }
    if (roles.extra > 0) {
      const auto back =
          Swap(call, roles.beside(), roles.takes() ? all : none, roles.gives() ? all : none);
      TW_CO_RETURN_IF_ERROR(co_await *back);
    }
    co_return OkStatus();
  }

  // Sends `given` and adds what `peer` has of `kept`.
  static Async Take(ExchangeCall call, DType type, int peer, ByteSpan given, MutableByteSpan kept,
                    MutableByteSpan room) {
    {
      ScopedTimer timer(&call.times->exchange_ms);
      const auto swap = Swap(call, peer, given, room.first(kept.size()));
      TW_CO_RETURN_IF_ERROR(co_await *swap);
    }
    ScopedTimer timer(&call.times->decode_ms);
    AddTerm(type, kept, room.first(kept.size()));
    co_return OkStatus();
  }

  static std::unique_ptr<Ticket> Swap(const ExchangeCall& call, int peer, ByteSpan send,
                                      MutableByteSpan receive) {
    const size_t n = static_cast<size_t>(call.comm->size()), p = static_cast<size_t>(peer);
    const auto sizes = call.scratch->GetHost<int64_t>(kScratchExchange3, 2 * n);
    std::fill(sizes.begin(), sizes.end(), 0);
    sizes[p] = static_cast<int64_t>(send.size());
    sizes[n + p] = static_cast<int64_t>(receive.size());
    return call.comm->StartAllToAllV(send, sizes.first(n), receive, sizes.subspan(n),
                                     {call.tag.step, call.tag.bucket, "halving"});
  }

  // Means instead of sums where a body is the parameter's own value; `own` is part of call.send.
  static void AverageOwn(const ExchangeCall& call, DType type, MutableByteSpan own) {
    ScopedTimer timer(&call.times->decode_ms);
    Together together;
    for (const Segment& segment : call.segments) {
      if (!segment.codec->traits().lossless) continue;
      uint8_t* const begin = std::max(segment.body.data(), own.data());
      uint8_t* const end =
          std::min(segment.body.data() + segment.body.size(), own.data() + own.size());
      if (begin < end) {
        together.Next();
        Average(type, {begin, static_cast<size_t>(end - begin)}, call.comm->size());
      }
    }
  }
};

TW_REGISTER(Exchange, halving, 0, NoConfig, HalvingExchange::Create,
            "bodies added by halves: ranks at distance n/2, n/4 ... swap and add, and double back");

}  // namespace
}  // namespace tw
