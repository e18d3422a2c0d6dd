// Sparse exchange (Merge::kSparse): lists of (index, value) are added up by n owners, so that what
// a rank sends follows the number of entries that differ, not the number of ranks. The split,
// reduce and balanced gather of Ok-topk (Li and Hoefler, arXiv 2201.07598), with every entry kept.
//
//   bins        the elements of a bucket, one parameter behind the other, in runs of equal length
//   counts      all ranks get everybody's number of entries in each bin
//   regions     n runs of bins with nearly equal numbers of entries; region r belongs to rank r
//   scatter     every owner gets everybody's entries of its region
//   add         acc_i = sum over ranks, in rank order, of value_i / n, in fp32
//   unions      all ranks get the number of non-zero sums in each bin
//   gather      all ranks get all sums, of a bin as a list, or plain where that is shorter
//
// Each element is added in the order and with the rounding of the gather exchange: the bits are
// the same, whoever owns it and whatever shares the bucket. What was counted tells every length and
// which bins travel plain, so nothing else need be agreed.
//
// A list, little-endian: its indices, each counted from the start of its bin and of ceil(log2 bin)
// bits, least significant bit first, padded with zero bits to a byte | its fp32 values. An owner's
// sums: the list of its listed bins | the fp32 elements of its plain bins. Nothing received is
// trusted: counts, indices and lengths are checked before they are used.
// Lists lie in the host's memory: a device's communicator is refused.
// State: none. Left out: a second selection among the sums, which would bound them by k but lose
// the rest.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "comm/flat_sum.h"
#include "core/api/exchange.h"
#include "core/base/clock.h"
#include "core/kernels/index_pack.h"

namespace tw {
namespace {

using kernels::IndexBits;
using kernels::IndexedValue;
using kernels::IndexOf;
using kernels::IndexReader;
using kernels::IndexWriter;
using kernels::PackedIndexBytes;
using kernels::ValueBitsOf;

// Enough to balance a few ranks; with many, two a rank.
constexpr int64_t kMinBins = 64;
constexpr int64_t kMinBinsPerRank = 2;

// A bucket's elements in bins of `width`, the last one shorter.
struct Bins {
  int64_t elements = 0, width = 1, count = 0;
  int bits = 0;

  Bins(int64_t elements, int ranks) : elements(elements) {
    const int64_t most = std::max(kMinBins, kMinBinsPerRank * ranks);
    width = std::max<int64_t>(1, (elements + most - 1) / most);
    count = (elements + width - 1) / width;
    bits = IndexBits(static_cast<uint64_t>(width));
  }
  int64_t Begin(int64_t bin) const { return std::min(elements, bin * width); }
  int64_t Length(int64_t bin) const { return Begin(bin + 1) - Begin(bin); }
  int64_t ListBytes(int64_t entries) const {
    return static_cast<int64_t>(PackedIndexBytes(static_cast<size_t>(entries), bits)) + 4 * entries;
  }
  // Whether `entries` sums of a bin travel as all its elements.
  bool Plain(int64_t bin, int64_t entries) const {
    return entries * (32 + bits) >= 32 * Length(bin);
  }
};

// Bins of one owner.
struct Region {
  int64_t begin = 0, end = 0;
};

using Counts = std::span<const uint32_t>;

int64_t Sum(Counts counts) {
  int64_t sum = 0;
  for (const uint32_t c : counts) sum += c;
  return sum;
}
Counts Of(const Region& region, Counts counts) {
  return counts.subspan(static_cast<size_t>(region.begin),
                        static_cast<size_t>(region.end - region.begin));
}

template <class T>
MutableByteSpan BytesOf(std::span<T> values) {
  return {reinterpret_cast<uint8_t*>(values.data()), values.size_bytes()};
}

Status Malformed(int rank, const std::string& what) {
  return DataLoss("from rank " + std::to_string(rank) + ": sparse: " + what);
}

Status CheckCounts(const Bins& bins, const Region& region, Counts counts, int rank) {
  for (int64_t b = region.begin; b < region.end; ++b) {
    if (counts[static_cast<size_t>(b - region.begin)] > bins.Length(b)) {
      return Malformed(rank, "more entries than elements");
    }
  }
  return OkStatus();
}

// Region r begins where r / n of all entries have come.
void CutRegions(std::span<const uint32_t> totals, std::span<Region> regions) {
  const int64_t all = Sum(totals), n = static_cast<int64_t>(regions.size());
  int64_t before = 0, bin = 0;
  for (int64_t r = 0; r < n; ++r) {
    regions[static_cast<size_t>(r)].begin = bin;
    while (bin < static_cast<int64_t>(totals.size()) &&
           (r + 1 == n || before * n < all * (r + 1))) {
      before += totals[static_cast<size_t>(bin++)];
    }
    regions[static_cast<size_t>(r)].end = bin;
  }
}

// Writes the list of ascending entries (of the whole bucket) that fall into the listed bins of a
// region; `skip(bin)` tells of the others. Returns its end.
template <class Skip>
uint8_t* WriteList(const Bins& bins, const Region& region, Counts counts, size_t listed,
                   std::span<const IndexedValue> entries, Skip skip, uint8_t* to) {
  IndexWriter indices(to, bins.bits);
  uint8_t* values = to + PackedIndexBytes(listed, bins.bits);
  size_t at = 0;
  for (int64_t b = region.begin; b < region.end; ++b) {
    const size_t end = at + counts[static_cast<size_t>(b - region.begin)];
    if (skip(b)) at = end;
    for (; at < end; ++at) {
      indices.Put(static_cast<uint32_t>(IndexOf(entries[at]) - bins.Begin(b)));
      StoreLE(values, ValueBitsOf(entries[at]));
      values += sizeof(float);
    }
  }
  indices.Finish();
  return values;
}

// add(element of the bucket, value) for each entry of the list of the region's bins that are not
// skipped. REQUIRES: list.size() == ListBytes(listed).
template <class Skip, class Add>
Status ReadList(const Bins& bins, const Region& region, Counts counts, size_t listed, ByteSpan list,
                int rank, Skip skip, Add add) {
  const ByteSpan packed = list.first(PackedIndexBytes(listed, bins.bits));
  IndexReader indices(packed, bins.bits);
  const uint8_t* value = list.data() + packed.size();
  for (int64_t b = region.begin; b < region.end; ++b) {
    if (skip(b)) continue;
    const int64_t begin = bins.Begin(b), length = bins.Length(b);
    int64_t next = 0;  // the smallest index allowed here
    for (uint32_t j = 0; j < counts[static_cast<size_t>(b - region.begin)]; ++j) {
      const int64_t index = indices.Next();
      if (index < next || index >= length) return Malformed(rank, "indices are not ascending");
      next = index + 1;
      add(begin + index, LoadLE<float>(value));
      value += sizeof(float);
    }
  }
  return indices.PaddingIsZero() ? OkStatus() : Malformed(rank, "bits after the last index");
}

// Walks upward through the means of all segments as one vector.
class Means {
 public:
  explicit Means(std::span<const Segment> segments) : segments_(segments) {}
  void Add(int64_t element, float value) {
    while (element >= begin_ + segments_[at_].mean.numel) begin_ += segments_[at_++].mean.numel;
    const TensorView& mean = segments_[at_].mean;
    const int64_t i = element - begin_;
    if (mean.dtype == DType::kF32) {
      static_cast<float*>(mean.data)[i] += value;
    } else {
      static_cast<double*>(mean.data)[i] += value;
    }
  }

 private:
  std::span<const Segment> segments_;
  size_t at_ = 0;
  int64_t begin_ = 0;
};

class SparseExchange : public Exchange {
 public:
  static StatusOr<std::unique_ptr<Exchange>> Create(const NoConfig&) {
    return std::make_unique<SparseExchange>();
  }

  Merge merge() const override { return Merge::kSparse; }

  ExchangeWork Work(const CompressorTraits&, int64_t, int ranks) const override {
    if (ranks == 1) return {};
    // Listed once by everybody, added once by the owners, and all the sums are taken in.
    return {.waits = 4, .messages = 4.0 * (ranks - 1), .decodes = 3};
  }
  // How far the ranks choose the same elements is not known before: an independent choice is
  // assumed, the dearest there is.
  double WireBytes(const TensorSpec& spec, int64_t payload_bytes, int ranks) const override {
    const double d = static_cast<double>(spec.numel()), n = ranks;
    if (ranks == 1 || spec.numel() == 0) return 0;
    const double entry = (32 + IndexBits(static_cast<uint64_t>(spec.numel()))) / 8.0;
    const double body = static_cast<double>(payload_bytes);
    const double density = std::min(1.0, body / entry / d);
    const double sums = d * (1 - std::pow(1 - density, n));
    const double counts = 4.0 * static_cast<double>(Bins(spec.numel(), ranks).count) * (n + 1);
    return (body + std::min(sums * entry, 4 * d) + counts) * (n - 1) / n;
  }

  Async Start(ExchangeCall call) const override {
    TW_CHECK(call.last_round);  // lists have one round
    for (const Segment& segment : call.segments) {
      TW_CHECK(segment.mean.dtype == DType::kF32 || segment.mean.dtype == DType::kF64);
    }
    if (call.comm->on_device()) {
      co_return ConfigError(
          "compressor.merge = \"sparse\" adds lists in the host's memory, which \"" +
          std::string(call.comm->name()) + "\" does not carry; take \"gather\"");
    }
    if (call.comm->size() > 1) co_return co_await AddOverRanks(call);
    ScopedTimer timer(&call.times->decode_ms);
    for (const Segment& segment : call.segments) {
      TW_CO_RETURN_IF_ERROR(NameParameter(
          segment.codec->DecodeAddAny(segment.body, 1.0f, segment.context, segment.mean), segment));
    }
    co_return OkStatus();
  }

 private:
  static Async AddOverRanks(ExchangeCall call) {
    Communicator& comm = *call.comm;
    Workspace& scratch = *call.scratch;
    const size_t n = static_cast<size_t>(comm.size()), me = static_cast<size_t>(comm.rank());
    const auto tag = [&](const char* what) { return OpTag{call.tag.step, call.tag.bucket, what}; };
    int64_t elements = 0;
    for (const Segment& segment : call.segments) elements += segment.context.spec->numel();
    if (elements == 0) co_return OkStatus();
    if (elements >= int64_t{1} << 32) {
      co_return ConfigError("a bucket of the sparse exchange has at most 2^32 - 1 elements");
    }
    const Bins bins(elements, comm.size());
    const size_t num_bins = static_cast<size_t>(bins.count);
    // Lengths to each rank and from each, regions; then entries by rank and bin, over ranks, and of
    // the sums.
    const size_t num_counts = (n + 2) * num_bins;
    const auto numbers = scratch.Get<int64_t>(kScratchExchange3, 4 * n + (num_counts + 1) / 2);
    const auto outgoing_sizes = numbers.first(n), incoming_sizes = numbers.subspan(n, n);
    const std::span<Region> regions(reinterpret_cast<Region*>(numbers.data() + 2 * n), n);
    const std::span<uint32_t> counts(reinterpret_cast<uint32_t*>(numbers.data() + 4 * n),
                                     num_counts);
    const auto counts_of = [&](size_t r) { return counts.subspan(r * num_bins, num_bins); };
    const auto totals = counts_of(n), unions = counts_of(n + 1);
    const Region whole{0, bins.count};
    const auto listed_all = [](int64_t) { return false; };

    std::span<const IndexedValue> entries;
    {
      ScopedTimer timer(&call.times->decode_ms);
      TW_CO_ASSIGN_OR_RETURN(entries, ListAll(call));
      CountByBin(bins, entries, counts_of(me));
    }
    {
      ScopedTimer timer(&call.times->exchange_ms);
      std::fill(incoming_sizes.begin(), incoming_sizes.end(), 4 * bins.count);
      const auto ticket =
          comm.control().StartAllGatherV(BytesOf(counts_of(me)), incoming_sizes,
                                         BytesOf(counts.first(n * num_bins)), tag("counts"));
      TW_CO_RETURN_IF_ERROR(co_await *ticket);
    }
    std::fill(totals.begin(), totals.end(), 0u);
    for (size_t r = 0; r < n; ++r) {
      TW_CO_RETURN_IF_ERROR(CheckCounts(bins, whole, counts_of(r), static_cast<int>(r)));
      for (size_t b = 0; b < num_bins; ++b) totals[b] += counts_of(r)[b];
    }
    CutRegions(totals, regions);
    const Region own = regions[me];

    int64_t outgoing_total = 0, incoming_total = 0, received = 0;
    for (size_t r = 0; r < n; ++r) {
      outgoing_sizes[r] = bins.ListBytes(Sum(Of(regions[r], counts_of(me))));
      incoming_sizes[r] = bins.ListBytes(Sum(Of(own, counts_of(r))));
      outgoing_total += outgoing_sizes[r];
      incoming_total += incoming_sizes[r];
      received += Sum(Of(own, counts_of(r)));
    }
    const auto outgoing =
        scratch.Get<uint8_t>(kScratchExchange1, static_cast<size_t>(outgoing_total));
    const auto incoming =
        scratch.Get<uint8_t>(kScratchExchange2, static_cast<size_t>(incoming_total));
    {
      ScopedTimer timer(&call.times->decode_ms);
      uint8_t* to = outgoing.data();
      for (size_t r = 0; r < n; ++r) {
        const Counts mine = Of(regions[r], counts_of(me));
        const size_t listed = static_cast<size_t>(Sum(mine));
        to = WriteList(bins, regions[r], mine, listed, entries.first(listed), listed_all, to);
        entries = entries.subspan(listed);
      }
    }
    {
      ScopedTimer timer(&call.times->exchange_ms);
      const auto ticket =
          comm.StartAllToAllV(outgoing, outgoing_sizes, incoming, incoming_sizes, tag("scatter"));
      TW_CO_RETURN_IF_ERROR(co_await *ticket);
    }

    // The sums of the own region, in ascending order without the zeros.
    const size_t own_begin = static_cast<size_t>(bins.Begin(own.begin));
    std::span<IndexedValue> sums;
    {
      ScopedTimer timer(&call.times->decode_ms);
      const auto acc = scratch.Get<float>(kScratchExchange1,
                                          static_cast<size_t>(bins.Begin(own.end)) - own_begin);
      std::fill(acc.begin(), acc.end(), 0.0f);
      const float scale = 1.0f / static_cast<float>(n);
      size_t at = 0;
      for (size_t r = 0; r < n; ++r) {
        const Counts theirs = Of(own, counts_of(r));
        const size_t bytes = static_cast<size_t>(incoming_sizes[r]);
        TW_CO_RETURN_IF_ERROR(ReadList(
            bins, own, theirs, static_cast<size_t>(Sum(theirs)), incoming.subspan(at, bytes),
            static_cast<int>(r), listed_all, [&](int64_t element, float value) {
              acc[static_cast<size_t>(element) - own_begin] += scale * value;
            }));
        at += bytes;
      }
      const size_t most = std::min(acc.size(), static_cast<size_t>(received));
      sums = scratch.Get<IndexedValue>(kScratchExchange2, most + kernels::kTakeSlack);
      sums = sums.first(kernels::TakeAbove({acc, nullptr, 1.0f}, 0.0f, sums));
      for (IndexedValue& e : sums) e += own_begin;
      const auto own_unions =
          unions.subspan(static_cast<size_t>(own.begin), static_cast<size_t>(own.end - own.begin));
      std::fill(own_unions.begin(), own_unions.end(), 0u);
      for (const IndexedValue e : sums) {
        ++unions[static_cast<size_t>(IndexOf(e) / static_cast<uint64_t>(bins.width))];
      }
    }
    {
      ScopedTimer timer(&call.times->exchange_ms);
      for (size_t r = 0; r < n; ++r) incoming_sizes[r] = 4 * (regions[r].end - regions[r].begin);
      const auto mine =
          unions.subspan(static_cast<size_t>(own.begin), static_cast<size_t>(own.end - own.begin));
      const auto ticket = comm.control().StartAllGatherV(BytesOf(mine), incoming_sizes,
                                                         BytesOf(unions), tag("unions"));
      TW_CO_RETURN_IF_ERROR(co_await *ticket);
    }
    int64_t total = 0, mine_at = 0;
    for (size_t r = 0; r < n; ++r) {
      TW_CO_RETURN_IF_ERROR(
          CheckCounts(bins, regions[r], Of(regions[r], unions), static_cast<int>(r)));
      const Shape shape = ShapeOf(bins, regions[r], unions);
      if (r == me) mine_at = total;
      incoming_sizes[r] = shape.bytes;
      total += shape.bytes;
    }
    const auto gathered = scratch.Get<uint8_t>(kScratchExchange0, static_cast<size_t>(total));
    const auto mine =
        gathered.subspan(static_cast<size_t>(mine_at), static_cast<size_t>(incoming_sizes[me]));
    {
      ScopedTimer timer(&call.times->decode_ms);
      WriteSums(bins, own, unions, sums, mine);
    }
    {
      ScopedTimer timer(&call.times->exchange_ms);
      const auto ticket = comm.StartAllGatherV(mine, incoming_sizes, gathered, tag("gather"));
      TW_CO_RETURN_IF_ERROR(co_await *ticket);
    }
    ScopedTimer timer(&call.times->decode_ms);
    size_t at = 0;
    for (size_t r = 0; r < n; ++r) {
      const ByteSpan theirs = gathered.subspan(at, static_cast<size_t>(incoming_sizes[r]));
      TW_CO_RETURN_IF_ERROR(
          AddSums(bins, regions[r], unions, theirs, static_cast<int>(r), call.segments));
      at += theirs.size();
    }
    co_return OkStatus();
  }

  // Everything this rank's bodies hold, by element of the bucket.
  static StatusOr<std::span<const IndexedValue>> ListAll(const ExchangeCall& call) {
    size_t total = 0;
    for (const Segment& segment : call.segments) {
      TW_ASSIGN_OR_RETURN(const size_t count,
                          segment.codec->ListEntries(segment.body, segment.context, {}));
      total += count;
    }
    const auto all = call.scratch->Get<IndexedValue>(kScratchExchange0, total);
    size_t at = 0;
    uint64_t begin = 0;
    for (const Segment& segment : call.segments) {
      TW_ASSIGN_OR_RETURN(const size_t count, segment.codec->ListEntries(
                                                  segment.body, segment.context, all.subspan(at)));
      for (IndexedValue& e : all.subspan(at, count)) e += begin;
      at += count;
      begin += static_cast<uint64_t>(segment.context.spec->numel());
    }
    return all;
  }

  static void CountByBin(const Bins& bins, std::span<const IndexedValue> entries,
                         std::span<uint32_t> counts) {
    std::fill(counts.begin(), counts.end(), 0u);
    for (const IndexedValue e : entries) {
      ++counts[static_cast<size_t>(IndexOf(e) / static_cast<uint64_t>(bins.width))];
    }
  }

  // How the sums of a region travel.
  struct Shape {
    size_t listed = 0;  // entries of listed bins
    int64_t list_bytes = 0;
    int64_t bytes = 0;  // with the plain bins
  };
  static Shape ShapeOf(const Bins& bins, const Region& region, Counts unions) {
    Shape shape;
    int64_t plain = 0;
    for (int64_t b = region.begin; b < region.end; ++b) {
      const uint32_t count = unions[static_cast<size_t>(b)];
      if (bins.Plain(b, count)) {
        plain += bins.Length(b);
      } else {
        shape.listed += count;
      }
    }
    shape.list_bytes = bins.ListBytes(static_cast<int64_t>(shape.listed));
    shape.bytes = shape.list_bytes + 4 * plain;
    return shape;
  }

  static void WriteSums(const Bins& bins, const Region& own, Counts unions,
                        std::span<const IndexedValue> sums, MutableByteSpan to) {
    const Shape shape = ShapeOf(bins, own, unions);
    const auto plain = [&](int64_t b) { return bins.Plain(b, unions[static_cast<size_t>(b)]); };
    uint8_t* at = WriteList(bins, own, Of(own, unions), shape.listed, sums, plain, to.data());
    size_t next = 0;
    for (int64_t b = own.begin; b < own.end; ++b) {
      const size_t end = next + unions[static_cast<size_t>(b)];
      if (plain(b)) {
        const size_t bytes = 4 * static_cast<size_t>(bins.Length(b));
        std::memset(at, 0, bytes);
        for (; next < end; ++next) {
          StoreLE(at + 4 * (IndexOf(sums[next]) - static_cast<size_t>(bins.Begin(b))),
                  ValueBitsOf(sums[next]));
        }
        at += bytes;
      }
      next = end;
    }
  }

  static Status AddSums(const Bins& bins, const Region& region, Counts unions, ByteSpan from,
                        int rank, std::span<const Segment> segments) {
    const Shape shape = ShapeOf(bins, region, unions);
    const auto plain = [&](int64_t b) { return bins.Plain(b, unions[static_cast<size_t>(b)]); };
    Means listed(segments), whole(segments);
    TW_RETURN_IF_ERROR(ReadList(bins, region, Of(region, unions), shape.listed,
                                from.first(static_cast<size_t>(shape.list_bytes)), rank, plain,
                                [&](int64_t element, float value) { listed.Add(element, value); }));
    const uint8_t* at = from.data() + shape.list_bytes;
    for (int64_t b = region.begin; b < region.end; ++b) {
      if (!plain(b)) continue;
      for (int64_t i = bins.Begin(b); i < bins.Begin(b + 1); ++i, at += sizeof(float)) {
        whole.Add(i, LoadLE<float>(at));
      }
    }
    return OkStatus();
  }
};

TW_REGISTER(Exchange, sparse, 0, NoConfig, SparseExchange::Create,
            "entries added by the owner of their region, sums gathered: as gather, to the bit");

}  // namespace
}  // namespace tw
