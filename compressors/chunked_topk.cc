// chunked_topk: the k largest magnitudes of every chunk, with indices inside of the chunk and
// values of a few bits if asked for: the codec of SparseLoCo (Sarfi et al., arXiv 2508.15706;
// chunks of 4096, 12-bit indices, 2-bit values). The grid of the values is ours.
//
//   chunk of L elements (the last one may be shorter), k = clamp(round(ratio * L), 1, L)
//   S = indices of the k largest |x_i| in the chunk, equal magnitudes by lower index
//   value_bits = 32: decode_i = x_i for i in S, else 0
//   else with T = 2^(value_bits-1) - 1, a = min |x_i|, b = max |x_i| over S, step = (b - a) / T:
//     q_i = nearest of 0..T to (|x_i| - a) / step;  decode_i = sign(x_i) * (q_i = T ? b : a +
//     q_i*step)
// Magnitudes of S start at a, not at 0, so a grid between a and b wastes no code; zeros stay zeros
// and |error| <= min(|x_i|, step/2).
//   delta >= k/L * 4 T^2 / (4 T^2 + k - 2)     (a = 0, one element b, the others midway to a step)
//
// Body: for every chunk [k ascending indices of ceil(log2 L) bits][values], each part packed least
// significant bit first and padded with zero bits to a byte. Values are k fp32, or fp32 a, fp32 b
// and k codes 2*q + (x < 0) of value_bits bits. Its size depends on numel only. No state. Left out:
// entropy coding of the indices.

#include <limits>

#include "compressors/keep_count.h"
#include "core/api/compressor.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/index_pack.h"
#include "core/kernels/topk.h"
#include "core/kernels/value_grid.h"

namespace tw {
namespace {

using kernels::IndexBits;
using kernels::IndexReader;
using kernels::PackedIndexBytes;
using kernels::ValueGrid;

struct ChunkedTopKConfig {
  double ratio = 0.01;
  int64_t chunk = 4096;
  int64_t value_bits = 32;
  static FieldList<ChunkedTopKConfig> Fields() {
    return FieldList<ChunkedTopKConfig>()
        .Real("ratio", &ChunkedTopKConfig::ratio, {0, 1, kOpenLow},
              "fraction of the elements that travel")
        .Int("chunk", &ChunkedTopKConfig::chunk, {1, 1 << 24},
             "elements among which the largest are chosen")
        .Int("value_bits", &ChunkedTopKConfig::value_bits, {2, 32},
             "bits of a value: 2, 4, 8, or 32 for the value itself");
  }
};

class ChunkedTopK : public Compressor {
 public:
  static StatusOr<std::unique_ptr<Compressor>> Create(const ChunkedTopKConfig& config) {
    const int64_t bits = config.value_bits;
    if (bits != 2 && bits != 4 && bits != 8 && bits != 32) {
      return ConfigError("compressor.value_bits = " + std::to_string(bits) +
                         " is none of 2, 4, 8, 32");
    }
    return std::unique_ptr<Compressor>(new ChunkedTopK(config));
  }

  const CompressorTraits& traits() const override { return traits_; }
  double Delta(const TensorSpec& spec) const override {
    const int64_t d = spec.numel();
    double delta = 1;
    for (const int64_t length : {std::min(d, config_.chunk), d % config_.chunk}) {
      if (length > 0) delta = std::min(delta, ChunkDelta(Shape(length)));
    }
    return delta;
  }
  double Omega(const TensorSpec&) const override { return std::numeric_limits<double>::infinity(); }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override {
    return static_cast<int64_t>(BodyBytes(static_cast<size_t>(spec.numel())));
  }

  int64_t BlockElements() const override { return config_.chunk; }
  int64_t ChunkBytes(int64_t numel) const override {
    return static_cast<int64_t>(BodyBytes(static_cast<size_t>(numel)));
  }

  StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView& message,
                                const CodecContext& context, MutableByteSpan body) const override {
    const size_t d = message.buffer.size();
    TW_CHECK_GE(body.size(), BodyBytes(d));
    const ChunkShape longest = Shape(static_cast<int64_t>(std::min(Chunk(), d)));
    // One chunk after the other in the same scratch; a device takes them together, each in its own.
    const bool together = kernels::OnDevice() != nullptr;
    const size_t room =
        together ? longest.kept : kernels::TopKScratch(longest.length, longest.kept);
    const auto scratch = context.scratch->Get<kernels::IndexedValue>(
        kScratchCodec0, together ? room * ((d + Chunk() - 1) / Chunk()) : room);
    float near = 0;  // the smallest magnitude sent of the chunk before
    uint8_t* to = body.data();
    Together chunks;
    for (size_t at = 0; at < d; at += Chunk()) {
      chunks.Next();
      const ChunkShape shape = Shape(static_cast<int64_t>(std::min(Chunk(), d - at)));
      const MessageView part{message.buffer.subspan(at, shape.length),
                             message.addend ? message.addend + at : nullptr, message.scale};
      const auto taken = kernels::TakeTopKNear(
          part, shape.kept, scratch.subspan(together ? at / Chunk() * room : 0, room), &near);
      if (exact()) {
        kernels::PackEntries(taken, shape.index_bits, to, to + shape.index_bytes);
      } else {
        kernels::PackEntriesOnGrids(taken, part.buffer, shape.index_bits, to, value_bits(),
                                    shape.kept, to + shape.index_bytes);
      }
      to += shape.bytes();
    }
    return static_cast<int64_t>(to - body.data());
  }

  Status DecodeAdd(ByteSpan body, float scale, const CodecContext&,
                   std::span<float> out) const override {
    TW_RETURN_IF_ERROR(Check(body, out.size()));
    Together chunks;
    for (size_t at = 0; at < out.size(); at += Chunk()) {
      chunks.Next();
      const ChunkShape shape = Shape(static_cast<int64_t>(std::min(Chunk(), out.size() - at)));
      const std::span<float> chunk = out.subspan(at, shape.length);
      const ByteSpan indices = body.first(shape.index_bytes);
      const uint8_t* values = body.data() + shape.index_bytes;
      if (exact()) {
        kernels::AddAtIndices(chunk, scale, indices, shape.index_bits, shape.kept, values);
      } else {
        kernels::AddAtIndicesFromGrids(chunk, scale, indices, shape.index_bits, shape.kept,
                                       value_bits(), shape.kept, values);
      }
      body = body.subspan(shape.bytes());
    }
    return OkStatus();
  }

  StatusOr<size_t> ListEntries(ByteSpan body, const CodecContext& context,
                               std::span<kernels::IndexedValue> out) const override {
    const size_t d = static_cast<size_t>(context.spec->numel());
    if (d >= size_t{1} << 32) return ConfigError("chunked_topk: more than 2^32 - 1 elements");
    size_t count = 0;
    for (size_t at = 0; at < d; at += Chunk()) {
      count += Shape(static_cast<int64_t>(std::min(Chunk(), d - at))).kept;
    }
    if (out.size() < count) return count;
    TW_RETURN_IF_ERROR(Check(body, d));
    size_t at = 0;
    ForEach(body, d, [&](size_t index, float value) {
      out[at++] = kernels::MakeIndexedValue(static_cast<uint32_t>(index), value);
    });
    return count;
  }

 private:
  struct ChunkShape {
    size_t length = 0, kept = 0;
    int index_bits = 0;
    size_t index_bytes = 0, value_bytes = 0;
    size_t bytes() const { return index_bytes + value_bytes; }
  };

  explicit ChunkedTopK(const ChunkedTopKConfig& config)
      : config_(config),
        traits_{.merges = Merges(config.value_bits),
                .block = true,
                .hop_needs_feedback = true,
                .fixed_size = true,
                .knob = {.key = "ratio", .value = config.ratio, .low = 1e-9, .high = 1.0}} {}

  // Lists travel with fp32 values.
  static std::vector<Merge> Merges(int64_t value_bits) {
    if (value_bits < 32) return {Merge::kGather, Merge::kReencode};
    return {Merge::kGather, Merge::kSparse, Merge::kReencode};
  }
  bool exact() const { return config_.value_bits == 32; }
  int value_bits() const { return static_cast<int>(config_.value_bits); }
  uint32_t top() const { return ValueGrid::Top(value_bits()); }
  size_t Chunk() const { return static_cast<size_t>(config_.chunk); }

  ChunkShape Shape(int64_t length) const {
    ChunkShape shape;
    shape.length = static_cast<size_t>(length);
    shape.kept = static_cast<size_t>(KeepCount(config_.ratio, length));
    shape.index_bits = IndexBits(shape.length);
    shape.index_bytes = PackedIndexBytes(shape.kept, shape.index_bits);
    shape.value_bytes = exact() ? shape.kept * sizeof(float)
                                : kernels::GridBytes(shape.kept, shape.kept, value_bits());
    return shape;
  }
  size_t BodyBytes(size_t d) const {
    const size_t tail = d % Chunk();
    return d / Chunk() * Shape(config_.chunk).bytes() +
           (tail > 0 ? Shape(static_cast<int64_t>(tail)).bytes() : 0);
  }
  double ChunkDelta(const ChunkShape& shape) const {
    const double kept = static_cast<double>(shape.kept);
    const double fraction = kept / static_cast<double>(shape.length);
    if (exact()) return fraction;
    return fraction * ValueGrid::Kept(top(), kept);
  }

  // take(index, value) for each element of a checked body.
  template <class Take>
  void ForEach(ByteSpan body, size_t d, Take take) const {
    for (size_t at = 0; at < d; at += Chunk()) {
      const ChunkShape shape = Shape(static_cast<int64_t>(std::min(Chunk(), d - at)));
      IndexReader indices(body.first(shape.index_bytes), shape.index_bits);
      const ByteSpan values = body.subspan(shape.index_bytes, shape.value_bytes);
      if (exact()) {
        for (size_t j = 0; j < shape.kept; ++j) {
          take(at + indices.Next(), LoadLE<float>(values.data() + j * sizeof(float)));
        }
      } else {
        const ValueGrid grid = ValueGrid::Load(values, top());
        IndexReader codes(values.subspan(ValueGrid::kBytes), value_bits());
        for (size_t j = 0; j < shape.kept; ++j) {
          take(at + indices.Next(), grid.Value(codes.Next()));
        }
      }
      body = body.subspan(shape.bytes());
    }
  }

  // All of it before anything is added.
  Status Check(ByteSpan body, size_t d) const {
    if (body.size() != BodyBytes(d)) {
      return DataLoss("chunked_topk: body of " + std::to_string(body.size()) + " bytes, expected " +
                      std::to_string(BodyBytes(d)));
    }
    if (kernels::OnDevice()) return OkStatus();
    for (size_t at = 0; at < d; at += Chunk()) {
      const ChunkShape shape = Shape(static_cast<int64_t>(std::min(Chunk(), d - at)));
      if (!kernels::AscendingBelow(body.first(shape.index_bytes), shape.index_bits, shape.kept,
                                   shape.length)) {
        return DataLoss("chunked_topk: indices are not ascending below " +
                        std::to_string(shape.length) + " in the chunk at " + std::to_string(at));
      }
      if (!exact()) TW_RETURN_IF_ERROR(CheckCodes(body.subspan(shape.index_bytes), shape, at));
      body = body.subspan(shape.bytes());
    }
    return OkStatus();
  }
  Status CheckCodes(ByteSpan values, const ChunkShape& shape, size_t at) const {
    const ValueGrid grid = ValueGrid::Load(values, top());
    IndexReader codes(values.subspan(ValueGrid::kBytes, shape.value_bytes - ValueGrid::kBytes),
                      value_bits());
    for (size_t j = 0; j < shape.kept; ++j) codes.Next();
    if (grid.valid() && codes.PaddingIsZero()) {
      return OkStatus();
    }
    return DataLoss("chunked_topk: values of the chunk at " + std::to_string(at) +
                    " are malformed");
  }

  ChunkedTopKConfig config_;
  CompressorTraits traits_;
};

TW_REGISTER(Compressor, chunked_topk, /*wire_id=*/14, ChunkedTopKConfig, ChunkedTopK::Create,
            "the largest magnitudes of each chunk, with values of 2 to 32 bits");

}  // namespace
}  // namespace tw
