// Sum exchange (Merge::kSum): bodies add up element by element.
//
//   reduce-scatter  the bodies of all segments are one flat buffer of N elements, cut into n chunks
//                   of nearly equal length; every rank gets everybody's part of its own chunk and
//                   adds the n terms of each element IN RANK ORDER
//   all-gather      the summed chunks go back to everybody
//
// Why not MPI_Allreduce: its order of additions changes with buffer size and algorithm. Here the
// order is that of the ranks, whatever the chunks: 1 bucket or 20 give the same bits.
//
// Sums of fp32 are formed in fp32, of fp64 in fp64, of fp16 and bf16 in fp32 with one rounding at
// the end. A lossless codec's bodies are the parameter's own values: those of fp64 and of two-byte
// types hold the mean afterwards (see HoldsMean). A cast codec scales by 1/n before it rounds, its
// bodies hold the sum.
//
// No frames travel: what a segment is was agreed before step 1. State: none. Left out: rings and
// trees (all ranks are one hop apart here; see the hierarchical exchange for slow links).

#include <algorithm>
#include <cstring>

#include "core/api/exchange.h"
#include "core/base/clock.h"
#include "core/kernels/elementwise.h"

namespace tw {
namespace {

// Elements added before going on to the next rank's: small enough to stay in the first-level cache.
constexpr size_t kTile = 2048;

void Add(std::span<float> to, std::span<const float> from) { kernels::AddInPlace(to, 1.0f, from); }
void Add(std::span<double> to, std::span<const double> from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}

// The n terms of a run of elements: parts[r * stride + i] is rank r's term of element i.
template <class T>
struct Terms {
  const T* parts = nullptr;
  size_t stride = 0;
  size_t ranks = 0;
  size_t count = 0;

  std::span<const T> Of(size_t rank, size_t begin, size_t length) const {
    return {parts + rank * stride + begin, length};
  }
};

// out[i] = sum of the terms of element i, added in rank order.
template <class T>
void AddTerms(const Terms<T>& terms, T* out) {
  for (size_t begin = 0; begin < terms.count; begin += kTile) {
    const std::span<T> to(out + begin, std::min(kTile, terms.count - begin));
    std::memcpy(to.data(), terms.parts + begin, to.size_bytes());
    for (size_t r = 1; r < terms.ranks; ++r) Add(to, terms.Of(r, begin, to.size()));
  }
}

using LoadLoop = void(std::span<const uint16_t> from, std::span<float> to);
using AddLoop = void(std::span<float> to, float scale, std::span<const uint16_t> from);
using StoreLoop = void(std::span<const float> from, std::span<uint16_t> to);

// out[i] = scale * (sum of the terms of element i), rounded once.
void AddTwoByteTerms(LoadLoop* load, AddLoop* add, StoreLoop* store, const Terms<uint16_t>& terms,
                     float scale, uint16_t* out) {
  float tile[kTile];
  for (size_t begin = 0; begin < terms.count; begin += kTile) {
    const std::span<float> sum(tile, std::min(kTile, terms.count - begin));
    load(terms.Of(0, begin, sum.size()), sum);
    for (size_t r = 1; r < terms.ranks; ++r) add(sum, 1.0f, terms.Of(r, begin, sum.size()));
    if (scale != 1.0f) kernels::Scale(sum, scale);
    store(sum, {out + begin, sum.size()});
  }
}

// The sum over ranks, or where `mean` is set, of types other than fp32, the mean.
void Reduce(DType dtype, bool mean, const Terms<uint8_t>& bytes, uint8_t* out) {
  const float scale = mean ? 1.0f / static_cast<float>(bytes.ranks) : 1.0f;
  const auto terms = [&]<class T>(T*) {
    return Terms<T>{reinterpret_cast<const T*>(bytes.parts), bytes.stride / sizeof(T), bytes.ranks,
                    bytes.count / sizeof(T)};
  };
  auto* const f32 = reinterpret_cast<float*>(out);
  auto* const f64 = reinterpret_cast<double*>(out);
  auto* const u16 = reinterpret_cast<uint16_t*>(out);
  switch (dtype) {
    case DType::kF32:
      return AddTerms(terms(f32), f32);
    case DType::kF64:
      AddTerms(terms(f64), f64);
      if (mean) {
        for (double& x : std::span(f64, bytes.count / sizeof(double))) {
          x /= static_cast<double>(bytes.ranks);
        }
      }
      return;
    case DType::kF16:
      return AddTwoByteTerms(kernels::ConvertFromHalf, kernels::AddFromHalf, kernels::ConvertToHalf,
                             terms(u16), scale, u16);
    case DType::kBF16:
      return AddTwoByteTerms(kernels::ConvertFromBf16, kernels::AddFromBf16, kernels::ConvertToBf16,
                             terms(u16), scale, u16);
    default:
      TW_CHECK(false && "bodies of this type cannot be summed");
  }
}

DType SumType(const Segment& segment) {
  const CompressorTraits& traits = segment.codec->traits();
  return traits.lossless ? segment.context.spec->dtype : traits.sum_dtype;
}

// The segment's body holds the mean, not the sum, after the exchange: two-byte sums could overflow,
// and DecodeAdd's factor, a float, would round fp64 means to 24 bits.
bool HoldsMean(const Segment& segment) {
  return segment.codec->traits().lossless && segment.context.spec->dtype != DType::kF32;
}

class SumExchange : public Exchange {
 public:
  static StatusOr<std::unique_ptr<Exchange>> Create(const NoConfig&) {
    return std::make_unique<SumExchange>();
  }

  Merge merge() const override { return Merge::kSum; }

  Status Run(std::span<Segment> segments, MutableByteSpan send, int round, bool last_round,
             const OpTag& tag, Communicator& comm, Workspace& scratch,
             ExchangeTimes* times) const override {
    if (send.empty()) return OkStatus();
    for (const Segment& segment : segments) TW_CHECK(SumType(segment) == SumType(segments[0]));
    const float mean_scale = 1.0f / static_cast<float>(comm.size());
    if (comm.size() > 1) {
      TW_RETURN_IF_ERROR(SumOverRanks(segments, send, tag, comm, scratch, times));
    }
    if (!last_round) return OkStatus();

    ScopedTimer timer(&times->decode_ms);
    for (const Segment& segment : segments) {
      const float scale = HoldsMean(segment) ? 1.0f : mean_scale;
      CodecContext context = segment.context;
      context.mean = true;
      TW_RETURN_IF_ERROR(
          Annotate(segment.codec->DecodeAddAny(segment.body, scale, context, segment.mean),
                   "parameter " + segment.context.spec->name));
    }
    return OkStatus();
  }

 private:
  static Status SumOverRanks(std::span<const Segment> segments, MutableByteSpan send,
                             const OpTag& tag, Communicator& comm, Workspace& scratch,
                             ExchangeTimes* times) {
    const int n = comm.size();
    const size_t ranks = static_cast<size_t>(n);
    const int64_t element_bytes = DTypeBytes(SumType(segments[0]));
    TW_CHECK_EQ(static_cast<int64_t>(send.size()) % element_bytes, 0);
    const int64_t total = static_cast<int64_t>(send.size()) / element_bytes;
    const auto chunk_begin = [&](int r) {
      return static_cast<size_t>(total * r / n * element_bytes);
    };
    const size_t own_begin = chunk_begin(comm.rank());
    const MutableByteSpan own = send.subspan(own_begin, chunk_begin(comm.rank() + 1) - own_begin);

    const auto lengths = scratch.Get<int64_t>(kScratchExchange3, 2 * ranks);
    const auto chunk_bytes = lengths.first(ranks);
    const auto own_bytes = lengths.subspan(ranks);
    for (int r = 0; r < n; ++r) {
      chunk_bytes[static_cast<size_t>(r)] =
          static_cast<int64_t>(chunk_begin(r + 1) - chunk_begin(r));
      own_bytes[static_cast<size_t>(r)] = static_cast<int64_t>(own.size());
    }
    const auto parts = scratch.Get<uint8_t>(kScratchExchange0, own.size() * ranks);
    {
      ScopedTimer timer(&times->exchange_ms);
      TW_RETURN_IF_ERROR(comm.AllToAllV(send, chunk_bytes, parts, own_bytes,
                                        {tag.step, tag.bucket, "reduce-scatter"}));
    }
    {
      ScopedTimer timer(&times->decode_ms);
      ReduceOwn(segments, own_begin, own, parts, ranks);
    }
    ScopedTimer timer(&times->exchange_ms);
    return comm.AllGatherV(own, chunk_bytes, send, {tag.step, tag.bucket, "all-gather"});
  }

  // Adds the terms of the own chunk, which starts at byte `own_begin` of the segments.
  static void ReduceOwn(std::span<const Segment> segments, size_t own_begin, MutableByteSpan own,
                        ByteSpan parts, size_t ranks) {
    const DType dtype = SumType(segments[0]);
    size_t segment_begin = 0;
    for (const Segment& segment : segments) {
      const size_t begin = std::max(segment_begin, own_begin);
      segment_begin += segment.body.size();
      const size_t end = std::min(segment_begin, own_begin + own.size());
      if (begin >= end) continue;
      const size_t at = begin - own_begin;
      Reduce(dtype, HoldsMean(segment), {parts.data() + at, own.size(), ranks, end - begin},
             own.data() + at);
    }
  }
};

TW_REGISTER(Exchange, sum, 0, NoConfig, SumExchange::Create,
            "bodies added over ranks in rank order: reduce-scatter, all-gather");

}  // namespace
}  // namespace tw
