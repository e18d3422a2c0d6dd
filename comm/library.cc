// Sum exchange by the transport's own all-reduce (Merge::kSum): MPI_Iallreduce between processes,
// ncclAllReduce between devices.
//
// For machines whose MPI knows their network better than the exchanges here do. Ranks get the same
// bits, but the order of additions is the library's: it may change with the length, and with it the
// last bits of a run with the number of buckets, the library's version and its settings. `sum`,
// `ring` and `halving` promise more. What is summed in a wider type, or is no sum, goes through
// `sum` (flat_sum.h). State: none.

#include <limits>

#include "comm/flat_sum.h"
#include "core/api/exchange.h"
#include "core/base/clock.h"
#include "core/base/device.h"

namespace tw {
namespace {

class LibraryExchange : public Exchange {
 public:
  static StatusOr<std::unique_ptr<Exchange>> Create(const NoConfig&) {
    return std::make_unique<LibraryExchange>();
  }

  Merge merge() const override { return Merge::kSum; }

  // Nobody here knows what it does: endless waits, and explain leaves it out.
  ExchangeWork Work(const CompressorTraits&, int64_t, int ranks) const override {
    if (ranks == 1) return {};
    return {.waits = std::numeric_limits<double>::infinity()};
  }

  Async Start(ExchangeCall call) const override {
    if (call.send.empty()) co_return OkStatus();
    const int n = call.comm->size();
    if (n == 1 || !PartialSumsTravel(call.segments, call.round)) {
      co_return co_await FindExchange(Merge::kSum)->Start(call);
    }
    const DType type = SumType(call.segments, call.round);
    {
      ScopedTimer timer(&call.times->exchange_ms);
      const std::unique_ptr<Ticket> ticket =
          call.comm->StartOwnSum(call.send, type, {call.tag.step, call.tag.bucket, "all-reduce"});
      if (!ticket) {
        co_return ConfigError(std::string("comm.sums = \"library\": the communicator \"") +
                              call.comm->name() + "\" has no all-reduce of its own");
      }
      TW_CO_RETURN_IF_ERROR(co_await *ticket);
    }
    if (!call.last_round) co_return OkStatus();
    ScopedTimer timer(&call.times->decode_ms);
    {
      Together together;
      for (const Segment& segment : call.segments) {
        together.Next();
        if (segment.codec->traits().lossless) Average(type, segment.body, n);
      }
    }
    co_return DecodeSums(call.segments, n);
  }
};

TW_REGISTER(Exchange, library, 0, NoConfig, LibraryExchange::Create,
            "bodies added by the transport's own all-reduce: MPI_Iallreduce, ncclAllReduce");

}  // namespace
}  // namespace tw
