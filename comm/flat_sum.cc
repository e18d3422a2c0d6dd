#include "comm/flat_sum.h"

#include <algorithm>
#include <cstring>

#include "core/base/device.h"
#include "core/kernels/elementwise.h"

namespace tw {
namespace {

// Elements added before going on to the next rank's: small enough to stay in the first-level cache.
constexpr size_t kTile = 2048;

// A device adds all elements of a rank at once.
size_t TileOf(size_t count) { return CurrentQueue() ? count : kTile; }

void Add(std::span<float> to, std::span<const float> from) { kernels::AddInPlace(to, 1.0f, from); }
void Add(std::span<double> to, std::span<const double> from) {  // of the host only
  for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}
void Add(std::span<uint8_t> to, std::span<const uint8_t> from) { kernels::AddBytes(to, from); }

template <class T, class Byte>
std::span<T> Elements(std::span<Byte> bytes) {
  return {reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T)};
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
  const size_t tile = TileOf(terms.count);
  for (size_t begin = 0; begin < terms.count; begin += tile) {
    const std::span<T> to(out + begin, std::min(tile, terms.count - begin));
    CopyBytes(to.data(), terms.parts + begin, to.size_bytes());
    for (size_t r = 1; r < terms.ranks; ++r) Add(to, terms.Of(r, begin, to.size()));
  }
}

// out[i] = the largest term of element i.
void TakeLargest(const Terms<float>& terms, float* out) {
  CopyBytes(out, terms.parts, terms.count * sizeof(float));
  for (size_t r = 1; r < terms.ranks; ++r) {
    kernels::TakeLarger({out, terms.count}, terms.Of(r, 0, terms.count));
  }
}

using LoadLoop = void(std::span<const uint16_t> from, std::span<float> to);
using AddLoop = void(std::span<float> to, float scale, std::span<const uint16_t> from);
using StoreLoop = void(std::span<const float> from, std::span<uint16_t> to);

// out[i] = scale * (sum of the terms of element i), rounded once. `wide`, of a device, has room for
// all sums.
void AddTwoByteTerms(LoadLoop* load, AddLoop* add, StoreLoop* store, const Terms<uint16_t>& terms,
                     float scale, std::span<float> wide, uint16_t* out) {
  float of_host[kTile];
  const size_t tile = TileOf(terms.count);
  for (size_t begin = 0; begin < terms.count; begin += tile) {
    const std::span<float> sum =
        (CurrentQueue() ? wide : std::span(of_host)).first(std::min(tile, terms.count - begin));
    load(terms.Of(0, begin, sum.size()), sum);
    for (size_t r = 1; r < terms.ranks; ++r) add(sum, 1.0f, terms.Of(r, begin, sum.size()));
    if (scale != 1.0f) kernels::Scale(sum, scale);
    store(sum, {out + begin, sum.size()});
  }
}

// The sum over ranks, or the largest, or the mean.
void Reduce(DType dtype, bool largest, bool mean, const Terms<uint8_t>& bytes,
            std::span<float> wide, uint8_t* out) {
  const float scale = mean ? 1.0f / static_cast<float>(bytes.ranks) : 1.0f;
  const auto terms = [&]<class T>(T*) {
    return Terms<T>{reinterpret_cast<const T*>(bytes.parts), bytes.stride / sizeof(T), bytes.ranks,
                    bytes.count / sizeof(T)};
  };
  auto* const f32 = reinterpret_cast<float*>(out);
  auto* const f64 = reinterpret_cast<double*>(out);
  auto* const u16 = reinterpret_cast<uint16_t*>(out);
  if (largest) return TakeLargest(terms(f32), f32);
  switch (dtype) {
    case DType::kU8:
      return AddTerms(bytes, out);
    case DType::kF32:
      AddTerms(terms(f32), f32);
      if (mean) kernels::Scale({f32, bytes.count / sizeof(float)}, scale);
      return;
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
                             terms(u16), scale, wide, u16);
    case DType::kBF16:
      return AddTwoByteTerms(kernels::ConvertFromBf16, kernels::AddFromBf16, kernels::ConvertToBf16,
                             terms(u16), scale, wide, u16);
    default:
      TW_CHECK(false && "bodies of this type cannot be summed");
  }
}

bool TakesLargest(const Segment& segment, int round) {
  return round == 0 && segment.codec->traits().max_first;
}

DType TypeOf(const Segment& segment, int round) {
  const CompressorTraits& traits = segment.codec->traits();
  if (TakesLargest(segment, round)) return DType::kF32;
  return traits.lossless ? segment.context.spec->dtype : traits.sum_dtype;
}

// The segment's body holds the mean, not the sum, after the exchange.
bool HoldsMean(const Segment& segment) { return segment.codec->traits().lossless; }

bool AddAlike(const Segment& a, const Segment& b, int round) {
  return TypeOf(a, round) == TypeOf(b, round) && TakesLargest(a, round) == TakesLargest(b, round) &&
         HoldsMean(a) == HoldsMean(b);
}

}  // namespace

DType SumType(std::span<const Segment> segments, int round) {
  const DType type = TypeOf(segments[0], round);
  for (const Segment& segment : segments) TW_CHECK(TypeOf(segment, round) == type);
  return type;
}

void AddInRankOrder(std::span<const Segment> segments, int round, size_t begin, ByteSpan parts,
                    MutableByteSpan own, Workspace& scratch) {
  if (own.empty()) return;
  const size_t ranks = parts.size() / own.size();
  std::span<float> wide;
  if (CurrentQueue() && DTypeBytes(SumType(segments, round)) == 2) {
    wide = scratch.Get<float>(kScratchExchange1, own.size() / 2);
  }
  size_t run_end = 0;
  for (size_t s = 0; s < segments.size();) {  // runs of segments that are added alike
    const Segment& first = segments[s];
    const size_t from = std::max(run_end, begin);
    do {
      run_end += segments[s++].body.size();
    } while (s < segments.size() && AddAlike(first, segments[s], round));
    const size_t to = std::min(run_end, begin + own.size());
    if (from >= to) continue;
    Reduce(TypeOf(first, round), TakesLargest(first, round), HoldsMean(first),
           {parts.data() + (from - begin), own.size(), ranks, to - from}, wide,
           own.data() + (from - begin));
  }
}

bool PartialSumsTravel(std::span<const Segment> segments, int round) {
  const DType type = SumType(segments, round);
  return (type == DType::kF32 || type == DType::kF64) &&
         std::none_of(segments.begin(), segments.end(),
                      [&](const Segment& segment) { return TakesLargest(segment, round); });
}

void AddTerm(DType type, MutableByteSpan to, ByteSpan from) {
  if (type == DType::kF32) return Add(Elements<float>(to), Elements<const float>(from));
  Add(Elements<double>(to), Elements<const double>(from));
}

void Average(DType type, MutableByteSpan sums, int ranks) {
  if (type == DType::kF32) {
    return kernels::Scale(Elements<float>(sums), 1.0f / static_cast<float>(ranks));
  }
  for (double& x : Elements<double>(sums)) x /= static_cast<double>(ranks);
}

Status DecodeSums(std::span<const Segment> segments, int ranks) {
  const float mean_scale = 1.0f / static_cast<float>(ranks);
  Together together;
  for (const Segment& segment : segments) {
    if (segment.body.data() == segment.mean.data) continue;  // the mean is in place
    together.Next();
    CodecContext context = segment.context;
    context.mean = true;
    TW_RETURN_IF_ERROR(NameParameter(
        segment.codec->DecodeAddAny(segment.body,
                                    HoldsMean(segment) && ranks > 1 ? 1.0f : mean_scale, context,
                                    segment.mean),
        segment));
  }
  return OkStatus();
}

namespace {

class FoldOfSums : public Fold {
 public:
  Status Add(FoldCall& call, ByteSpan body, int client) const override {
    const DType type = TypeOf(call);
    const size_t count = body.size() / static_cast<size_t>(DTypeBytes(type));
    const bool first = call.added++ == 0;
    if (first) call.reduced = ByteSpan(Sum(call, type, count), body.size());
    if (body.size() != call.reduced.size()) {
      return DataLoss("from client " + std::to_string(client) + ": " + std::to_string(body.size()) +
                      " bytes where others have " + std::to_string(call.reduced.size()));
    }
    uint8_t* const sum = Sum(call, type, count);
    switch (type) {
      case DType::kF32:
      case DType::kF64:
        if (first) {
          if (!body.empty()) std::memcpy(sum, body.data(), body.size());
        } else if (TakesLargest(call)) {
          kernels::TakeLarger(std::span(reinterpret_cast<float*>(sum), count),
                              std::span(reinterpret_cast<const float*>(body.data()), count));
        } else if (type == DType::kF32) {
          tw::Add(std::span(reinterpret_cast<float*>(sum), count),
                  std::span(reinterpret_cast<const float*>(body.data()), count));
        } else {
          tw::Add(std::span(reinterpret_cast<double*>(sum), count),
                  std::span(reinterpret_cast<const double*>(body.data()), count));
        }
        return OkStatus();
      case DType::kF16:
      case DType::kBF16: {
        const std::span<float> wide(reinterpret_cast<float*>(sum), count);
        const std::span<const uint16_t> from(reinterpret_cast<const uint16_t*>(body.data()), count);
        if (first) {
          type == DType::kF16 ? kernels::ConvertFromHalf(from, wide)
                              : kernels::ConvertFromBf16(from, wide);
        } else {
          type == DType::kF16 ? kernels::AddFromHalf(wide, 1.0f, from)
                              : kernels::AddFromBf16(wide, 1.0f, from);
        }
        return OkStatus();
      }
      case DType::kU8:
        if (first) {
          if (!body.empty()) std::memcpy(sum, body.data(), body.size());
        } else {
          tw::Add(std::span(sum, count), body);
        }
        return OkStatus();
      default:
        TW_CHECK(false && "bodies of this type cannot be summed");
    }
  }

  Status Finish(FoldCall& call) const override {
    const DType type = TypeOf(call);
    const size_t count = call.reduced.size() / static_cast<size_t>(DTypeBytes(type));
    uint8_t* const sum = Sum(call, type, count);
    if (DTypeBytes(type) == 2) {  // rounded once, in the memory of the wide sum
      const std::span<const float> wide(reinterpret_cast<const float*>(sum), count);
      const std::span<uint16_t> narrow(reinterpret_cast<uint16_t*>(sum + 4 * count), count);
      type == DType::kF16 ? kernels::ConvertToHalf(wide, narrow)
                          : kernels::ConvertToBf16(wide, narrow);
      call.reduced = {reinterpret_cast<const uint8_t*>(narrow.data()), call.reduced.size()};
    }
    if (!call.last_round) return OkStatus();
    if (call.codec->traits().lossless) {  // the sum lies in the mean's own memory
      if (type == DType::kF32) {
        kernels::Scale(call.mean.f32(), 1.0f / static_cast<float>(call.denominator));
      } else {
        for (double& x : std::span(reinterpret_cast<double*>(sum), count)) {
          x /= static_cast<double>(call.denominator);
        }
      }
      return OkStatus();
    }
    CodecContext context = call.context;
    context.mean = true;
    return call.codec->DecodeAddAny(call.reduced, 1.0f / static_cast<float>(call.denominator),
                                    context, call.mean);
  }

 private:
  static bool TakesLargest(const FoldCall& call) {
    return !call.last_round && call.codec->traits().max_first;
  }
  static DType TypeOf(const FoldCall& call) {
    const CompressorTraits& traits = call.codec->traits();
    if (TakesLargest(call)) return DType::kF32;
    return traits.lossless ? call.context.spec->dtype : traits.sum_dtype;
  }
  // Where the sum is formed; two-byte types have room for the wide sum and the rounded one.
  static uint8_t* Sum(FoldCall& call, DType type, size_t count) {
    if (call.codec->traits().lossless) return static_cast<uint8_t*>(call.mean.data);
    return call.sum->Reserve(count * (DTypeBytes(type) == 8 ? 8 : 4) +
                             (DTypeBytes(type) == 2 ? count * 2 : 0));
  }
};

}  // namespace

const Fold* SumFold() {
  static const FoldOfSums fold;
  return &fold;
}

}  // namespace tw
