// topk: the k largest magnitudes with their indices (Stich, Cordonnier, Jaggi, "Sparsified SGD with
// Memory", arXiv 1809.07599; Alistarh et al., arXiv 1809.10505).
//
//   k = clamp(round(ratio * d), 1, d)
//   S = indices of the k largest |x_i|, equal magnitudes by lower index
//   decode(body)_i = x_i for i in S, else 0          E||C(x)-x||^2 <= (1 - k/d) ||x||^2
//
// value_bits below 32: the values in index order, in groups of 256, are rounded to a grid of the
// group (value_grid.h), and the residual keeps what that loses:
//   delta >= k/d * 4 T^2 / (4 T^2 + 254), T = 2^(value_bits-1) - 1
//
// Body, little-endian: u32 k | indices | values.
//   entropy = none   k ascending indices of ceil(log2 d) bits each, least significant bit first,
//                    padded with zero bits to a byte
//   entropy = zstd   u32 z | z bytes: a zstd frame of the gaps (index - the one before - 1, 7 bits
//   a
//                    byte, lowest first, high bit set while more follow). z = 0: as with none,
//                    where the frame would not be smaller
//   values           k fp32; or for each group fp32 a, fp32 b and its codes, padded to a byte
// The size depends on d only, but for zstd's. No state. Left out: chunked selection and tree merges
// of several ranks' selections; entropy coding of the values (their codes fill the grid evenly).

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <memory>

#include "compressors/gap_code.h"
#include "compressors/keep_count.h"
#include "core/api/compressor.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/index_pack.h"
#include "core/kernels/reduce.h"
#include "core/kernels/topk.h"
#include "core/kernels/value_grid.h"

namespace tw {
namespace {

using kernels::IndexBits;
using kernels::PackedIndexBytes;
using kernels::ValueGrid;

struct TopKConfig {
  double ratio = 0.01;
  int64_t value_bits = 32;
  std::string entropy = "none";
  static FieldList<TopKConfig> Fields() {
    return FieldList<TopKConfig>()
        .Real("ratio", &TopKConfig::ratio, {0, 1, kOpenLow}, "fraction of the elements that travel")
        .Int("value_bits", &TopKConfig::value_bits, {4, 32},
             "bits of a value: 4, 8, 16, or 32 for the value itself")
        .Text("entropy", &TopKConfig::entropy, {"none", "zstd"},
              "how indices are packed: fixed width, or their gaps through zstd");
  }
};

// Values that share a grid.
constexpr size_t kGroup = 256;

class TopK : public Compressor {
 public:
  explicit TopK(const TopKConfig& config)
      : config_(config),
        traits_{.merges = {Merge::kGather},
                .fixed_size = config.entropy == "none",
                .knob = {.key = "ratio", .value = config.ratio, .low = 1e-9, .high = 1.0},
                .host_only = config.entropy == "none" ? nullptr : "zstd works on the host"} {
    if (exact()) traits_.merges.push_back(Merge::kSparse);  // lists travel with fp32 values
  }
  static StatusOr<std::unique_ptr<Compressor>> Create(const TopKConfig& config) {
    const int64_t bits = config.value_bits;
    if (bits != 4 && bits != 8 && bits != 16 && bits != 32) {
      return ConfigError("compressor.value_bits = " + std::to_string(bits) +
                         " is none of 4, 8, 16, 32");
    }
    return std::make_unique<TopK>(config);
  }

  const CompressorTraits& traits() const override { return traits_; }
  double Delta(const TensorSpec& spec) const override {
    const int64_t d = spec.numel();
    if (d == 0) return 1;
    const double k = static_cast<double>(KeepCount(config_.ratio, d));
    const double kept = exact() ? 1 : ValueGrid::Kept(top(), std::min<double>(k, kGroup));
    return k / static_cast<double>(d) * kept;
  }
  double Omega(const TensorSpec&) const override { return std::numeric_limits<double>::infinity(); }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override {
    const Shape shape = ShapeOf(spec.numel());
    return static_cast<int64_t>(shape.indices_at + shape.packed + shape.values);
  }

  StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView& message,
                                const CodecContext& context, MutableByteSpan body) const override {
    const int64_t d = message.numel();
    if (d == 0) return 0;
    if (d >= int64_t{1} << 32) return ConfigError("topk: a tensor has at most 2^32 - 1 elements");
    const Shape shape = ShapeOf(d);
    TW_CHECK_GE(body.size(), shape.indices_at + shape.packed + shape.values);
    const auto taken = kernels::TakeTopK(
        message, shape.k,
        context.scratch->Get<kernels::IndexedValue>(
            kScratchCodec0, kernels::TopKScratch(message.buffer.size(), shape.k)));
    PutNumber(body.data(), static_cast<uint32_t>(shape.k));
    uint8_t* const indices = body.data() + shape.indices_at;
    uint8_t* const values = indices + shape.packed;
    if (exact()) {
      kernels::PackEntries(taken, shape.bits, indices, values);
    } else {
      kernels::PackEntriesOnGrids(taken, message.buffer, shape.bits, indices, value_bits(), kGroup,
                                  values);
    }
    size_t packed = shape.packed;
    if (!traits_.fixed_size) {
      TW_ASSIGN_OR_RETURN(const size_t coded,
                          EncodeGaps(taken, *context.scratch, {indices, shape.packed}));
      PutNumber(body.data() + sizeof(uint32_t), static_cast<uint32_t>(coded));
      if (coded > 0) {
        packed = coded;
        std::memmove(indices + packed, values, shape.values);
      }
    }
    return static_cast<int64_t>(shape.indices_at + packed + shape.values);
  }

  Status DecodeAdd(ByteSpan body, float scale, const CodecContext& context,
                   std::span<float> out) const override {
    TW_ASSIGN_OR_RETURN(const Parts parts,
                        Checked(body, static_cast<int64_t>(out.size()), *context.scratch));
    const Shape& shape = parts.shape;
    if (exact()) {
      kernels::AddAtIndices(out, scale, parts.indices, shape.bits, shape.k, parts.values.data());
    } else {
      kernels::AddAtIndicesFromGrids(out, scale, parts.indices, shape.bits, shape.k, value_bits(),
                                     kGroup, parts.values.data());
    }
    return OkStatus();
  }

  StatusOr<size_t> ListEntries(ByteSpan body, const CodecContext& context,
                               std::span<kernels::IndexedValue> out) const override {
    const int64_t d = context.spec->numel();
    const size_t k = static_cast<size_t>(KeepCount(config_.ratio, d));
    if (out.size() < k) return k;
    size_t at = 0;
    TW_ASSIGN_OR_RETURN(const Parts parts, Checked(body, d, *context.scratch));
    ForEach(parts, [&](uint32_t index, float value) {
      out[at++] = kernels::MakeIndexedValue(index, value);
    });
    return k;
  }

  // One selection, the largest, tells the others: its elements by magnitude.
  Status OptionErrors(std::span<const Compressor* const> options, std::span<const float> message,
                      const CodecContext& context, std::span<double> squared) const override {
    if (!exact()) return Compressor::OptionErrors(options, message, context, squared);
    const int64_t d = static_cast<int64_t>(message.size());
    std::vector<int64_t> kept;
    for (const Compressor* option : options) {
      kept.push_back(KeepCount(option->traits().knob.value, d));
    }
    std::fill(squared.begin(), squared.end(), 0.0);
    if (d == 0 || options.empty()) return OkStatus();
    const size_t most = static_cast<size_t>(*std::max_element(kept.begin(), kept.end()));
    const auto rest = context.scratch->Get<float>(kScratchMessage, message.size());
    std::copy(message.begin(), message.end(), rest.begin());
    const auto taken =
        kernels::TakeTopK({rest, nullptr, 1.0f}, most,
                          context.scratch->Get<kernels::IndexedValue>(
                              kScratchCodec0, kernels::TopKScratch(rest.size(), most)));
    std::vector<double> squares;
    for (const auto e : taken) {
      const double x = std::bit_cast<float>(kernels::ValueBitsOf(e));
      squares.push_back(x * x);
    }
    std::sort(squares.begin(), squares.end());
    // left[j]: what remains when all but the j smallest of them are sent.
    std::vector<double> left = {kernels::SumOfSquares(rest)};
    for (const double x : squares) left.push_back(left.back() + x);
    for (size_t i = 0; i < kept.size(); ++i) {
      squared[i] = left[most - static_cast<size_t>(kept[i])];
    }
    return OkStatus();
  }

 private:
  struct Shape {
    size_t k = 0;
    int bits = 0;           // of an index
    size_t indices_at = 0;  // behind k, and z
    size_t packed = 0;      // bytes of indices of fixed width
    size_t values = 0;      // bytes
  };
  Shape ShapeOf(int64_t d) const {
    Shape shape;
    if (d == 0) return shape;
    shape.k = static_cast<size_t>(KeepCount(config_.ratio, d));
    shape.bits = IndexBits(static_cast<uint64_t>(d));
    shape.indices_at = sizeof(uint32_t) * (traits_.fixed_size ? 1 : 2);
    shape.packed = PackedIndexBytes(shape.k, shape.bits);
    shape.values = exact() ? shape.k * sizeof(float) : GroupBytes(shape.k);
    return shape;
  }
  size_t GroupBytes(size_t count) const { return kernels::GridBytes(count, kGroup, value_bits()); }
  bool exact() const { return config_.value_bits == 32; }
  int value_bits() const { return static_cast<int>(config_.value_bits); }
  uint32_t top() const { return ValueGrid::Top(value_bits()); }

  // A body that was checked; indices of fixed width.
  struct Parts {
    Shape shape;
    ByteSpan indices, values;
  };
  StatusOr<Parts> Checked(ByteSpan body, int64_t d, Workspace& scratch) const {
    Parts parts{ShapeOf(d), {}, {}};
    if (d == 0 && body.empty()) return parts;
    if (d == 0) return DataLoss("topk: a body of no elements");
    const Shape& shape = parts.shape;
    TW_ASSIGN_OR_RETURN(const size_t coded, CheckSizes(body, shape, d));
    parts.indices = body.subspan(shape.indices_at, coded ? coded : shape.packed);
    parts.values = body.subspan(shape.indices_at + parts.indices.size());
    if (kernels::OnDevice()) return parts;
    const uint64_t numel = static_cast<uint64_t>(d);
    if (coded) {
      TW_ASSIGN_OR_RETURN(parts.indices,
                          DecodeGaps(parts.indices, shape.k, numel, shape.bits, scratch));
    }
    if (!kernels::AscendingBelow(parts.indices, shape.bits, shape.k, numel)) {
      return DataLoss("topk: indices are not ascending below " + std::to_string(d));
    }
    if (!exact()) TW_RETURN_IF_ERROR(CheckGroups(parts.values, shape.k));
    return parts;
  }

  // take(index, value) for each element.
  template <class Take>
  void ForEach(const Parts& parts, Take take) const {
    const size_t k = parts.shape.k;
    kernels::IndexReader indices(parts.indices, parts.shape.bits);
    const uint8_t* at = parts.values.data();
    if (exact()) {
      for (size_t j = 0; j < k; ++j) take(indices.Next(), LoadLE<float>(at + j * sizeof(float)));
      return;
    }
    for (size_t first = 0; first < k; first += kGroup) {
      const size_t count = std::min(kGroup, k - first);
      const ByteSpan group(at, GroupBytes(count));
      const ValueGrid grid = ValueGrid::Load(group, top());
      kernels::IndexReader codes(group.subspan(ValueGrid::kBytes), value_bits());
      for (size_t j = 0; j < count; ++j) take(indices.Next(), grid.Value(codes.Next()));
      at += group.size();
    }
  }

  // The bytes of entropy-coded indices; 0 where they have fixed width.
  StatusOr<size_t> CheckSizes(ByteSpan body, const Shape& shape, int64_t d) const {
    size_t coded = 0;
    if (body.size() >= shape.indices_at && !traits_.fixed_size) {
      coded = LoadLE<uint32_t>(body.data() + sizeof(uint32_t));
    }
    const size_t expected = shape.indices_at + (coded ? coded : shape.packed) + shape.values;
    if (body.size() != expected || coded >= std::max<size_t>(shape.packed, 1)) {
      return DataLoss("topk: body of " + std::to_string(body.size()) + " bytes, expected " +
                      std::to_string(expected) + " for " + std::to_string(d) + " elements");
    }
    if (kernels::OnDevice()) return coded;
    const uint32_t count = LoadLE<uint32_t>(body.data());
    if (count != shape.k) {
      return DataLoss("topk: body of " + std::to_string(count) + " elements, expected " +
                      std::to_string(shape.k));
    }
    return coded;
  }
  Status CheckGroups(ByteSpan values, size_t k) const {
    for (size_t first = 0; first < k; first += kGroup) {
      const size_t count = std::min(kGroup, k - first);
      const ByteSpan group = values.first(GroupBytes(count));
      kernels::IndexReader codes(group.subspan(ValueGrid::kBytes), value_bits());
      for (size_t j = 0; j < count; ++j) codes.Next();
      if (!ValueGrid::Load(group, top()).valid() || !codes.PaddingIsZero()) {
        return DataLoss("topk: values from element " + std::to_string(first) + " are malformed");
      }
      values = values.subspan(group.size());
    }
    return OkStatus();
  }

  TopKConfig config_;
  CompressorTraits traits_;
};

TW_REGISTER(Compressor, topk, /*wire_id=*/4, TopKConfig, TopK::Create,
            "the largest magnitudes of a tensor, exactly chosen, with values of 4 to 32 bits");

}  // namespace
}  // namespace tw
