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
// the end. A lossless codec's two-byte bodies are the parameter's own values, and the sum of n
// halves may overflow: their bodies hold the mean afterwards. A cast codec scales by 1/n before it
// rounds, its bodies hold the sum.
//
// No frames travel: what a segment is was agreed before step 1. State: none. Left out: rings and
// trees (all ranks are one hop apart here; see the hierarchical exchange for slow links).

#include <algorithm>
#include <cstring>

#include "core/api/convert.h"
#include "core/api/exchange.h"
#include "core/base/clock.h"

namespace tw {
namespace {

// Elements added before going on to the next rank's: small enough to stay in the first-level cache.
constexpr int64_t kTile = 2048;

// out[i] = sum over ranks of parts[r * count + i], added in rank order.
template <class T>
void AddParts(const T* parts, int n, int64_t count, T* out) {
  for (int64_t begin = 0; begin < count; begin += kTile) {
    const int64_t length = std::min(kTile, count - begin);
    T* const to = out + begin;
    std::memcpy(to, parts + begin, static_cast<size_t>(length) * sizeof(T));
    for (int r = 1; r < n; ++r) {
      const T* const from = parts + r * count + begin;
      for (int64_t i = 0; i < length; ++i) to[i] += from[i];
    }
  }
}

// out[i] = scale * (sum over ranks of parts[r * count + i]), rounded once.
template <float (*Load)(uint16_t), uint16_t (*Store)(float)>
void AddTwoByteParts(const uint16_t* parts, int n, int64_t count, float scale, uint16_t* out) {
  float sum[kTile];
  for (int64_t begin = 0; begin < count; begin += kTile) {
    const int64_t length = std::min(kTile, count - begin);
    for (int64_t i = 0; i < length; ++i) sum[i] = Load(parts[begin + i]);
    for (int r = 1; r < n; ++r) {
      const uint16_t* const from = parts + r * count + begin;
      for (int64_t i = 0; i < length; ++i) sum[i] += Load(from[i]);
    }
    for (int64_t i = 0; i < length; ++i) out[begin + i] = Store(sum[i] * scale);
  }
}

// How a call's bodies add up.
struct Summing {
  DType dtype = DType::kF32;
  bool mean = false;  // bodies hold the mean afterwards

  explicit Summing(const Segment& segment) {
    const CompressorTraits& traits = segment.codec->traits();
    dtype = traits.lossless ? segment.context.spec->dtype : traits.sum_dtype;
    mean = traits.lossless && DTypeBytes(dtype) == 2;
  }
  bool operator==(const Summing&) const = default;
};

void Reduce(const Summing& summing, const uint8_t* parts, int n, int64_t count, uint8_t* out) {
  const float scale = summing.mean ? 1.0f / static_cast<float>(n) : 1.0f;
  switch (summing.dtype) {
    case DType::kF32:
      return AddParts(reinterpret_cast<const float*>(parts), n, count,
                      reinterpret_cast<float*>(out));
    case DType::kF64:
      return AddParts(reinterpret_cast<const double*>(parts), n, count,
                      reinterpret_cast<double*>(out));
    case DType::kF16:
      return AddTwoByteParts<HalfToFloat, FloatToHalf>(reinterpret_cast<const uint16_t*>(parts), n,
                                                       count, scale,
                                                       reinterpret_cast<uint16_t*>(out));
    case DType::kBF16:
      return AddTwoByteParts<Bf16ToFloat, FloatToBf16>(reinterpret_cast<const uint16_t*>(parts), n,
                                                       count, scale,
                                                       reinterpret_cast<uint16_t*>(out));
    default:
      TW_CHECK(false && "bodies of this type cannot be summed");
  }
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
    const Summing summing(segments.front());
    for (const Segment& segment : segments) TW_CHECK(Summing(segment) == summing);
    const int n = comm.size();
    if (n > 1) TW_RETURN_IF_ERROR(SumOverRanks(summing, send, tag, comm, scratch, times));
    if (!last_round) return OkStatus();

    ScopedTimer timer(&times->decode_ms);
    const float scale = summing.mean ? 1.0f : 1.0f / static_cast<float>(n);
    for (const Segment& segment : segments) {
      CodecContext context = segment.context;
      context.mean = true;
      TW_RETURN_IF_ERROR(
          Annotate(segment.codec->DecodeAddAny(segment.body, scale, context, segment.mean),
                   "parameter " + segment.context.spec->name));
    }
    return OkStatus();
  }

 private:
  static Status SumOverRanks(const Summing& summing, MutableByteSpan send, const OpTag& tag,
                             Communicator& comm, Workspace& scratch, ExchangeTimes* times) {
    const int n = comm.size();
    const size_t ranks = static_cast<size_t>(n);
    const int64_t element_bytes = DTypeBytes(summing.dtype);
    TW_CHECK_EQ(static_cast<int64_t>(send.size()) % element_bytes, 0);
    const int64_t total = static_cast<int64_t>(send.size()) / element_bytes;
    const auto chunk_begin = [&](int r) { return total * r / n; };
    const int64_t own_begin = chunk_begin(comm.rank());
    const int64_t own_count = chunk_begin(comm.rank() + 1) - own_begin;

    const auto lengths = scratch.Get<int64_t>(kScratchExchange3, 2 * ranks);
    const auto chunk_bytes = lengths.first(ranks);
    const auto own_bytes = lengths.subspan(ranks);
    for (int r = 0; r < n; ++r) {
      chunk_bytes[static_cast<size_t>(r)] = (chunk_begin(r + 1) - chunk_begin(r)) * element_bytes;
      own_bytes[static_cast<size_t>(r)] = own_count * element_bytes;
    }
    const auto parts = scratch.Get<uint8_t>(kScratchExchange0,
                                            static_cast<size_t>(own_count * element_bytes) * ranks);
    const MutableByteSpan own = send.subspan(static_cast<size_t>(own_begin * element_bytes),
                                             static_cast<size_t>(own_count * element_bytes));
    {
      ScopedTimer timer(&times->exchange_ms);
      TW_RETURN_IF_ERROR(comm.AllToAllV(send, chunk_bytes, parts, own_bytes,
                                        {tag.step, tag.bucket, "reduce-scatter"}));
    }
    {
      ScopedTimer timer(&times->decode_ms);
      Reduce(summing, parts.data(), n, own_count, own.data());
    }
    ScopedTimer timer(&times->exchange_ms);
    return comm.AllGatherV(own, chunk_bytes, send, {tag.step, tag.bucket, "all-gather"});
  }
};

TW_REGISTER(Exchange, sum, 0, NoConfig, SumExchange::Create,
            "bodies added over ranks in rank order: reduce-scatter, all-gather");

}  // namespace
}  // namespace tw
