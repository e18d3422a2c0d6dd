// topk: the k largest magnitudes with their indices (Stich, Cordonnier, Jaggi, "Sparsified SGD with
// Memory", arXiv 1809.07599; Alistarh et al., arXiv 1809.10505).
//
//   k = clamp(round(ratio * d), 1, d)
//   S = indices of the k largest |x_i|, equal magnitudes by lower index
//   decode(body)_i = x_i for i in S, else 0          E||C(x)-x||^2 <= (1 - k/d) ||x||^2
//
// Body, little-endian: u32 k | k ascending indices of ceil(log2 d) bits each, least significant bit
// first, padded with zero bits to a byte | k fp32 values in index order. Its size depends on d
// only. No state. Left out: chunked selection and tree merges of several ranks' selections.

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "compressors/keep_count.h"
#include "core/api/compressor.h"
#include "core/kernels/index_pack.h"
#include "core/kernels/reduce.h"
#include "core/kernels/topk.h"

namespace tw {
namespace {

using kernels::IndexBits;
using kernels::PackedIndexBytes;

struct TopKConfig {
  double ratio = 0.01;
  static FieldList<TopKConfig> Fields() {
    return FieldList<TopKConfig>().Real("ratio", &TopKConfig::ratio, {0, 1, kOpenLow},
                                        "fraction of the elements that travel");
  }
};

class TopK : public Compressor {
 public:
  explicit TopK(const TopKConfig& config)
      : config_(config),
        traits_{.merges = {Merge::kGather},
                .fixed_size = true,
                .knob = {.key = "ratio", .value = config.ratio, .low = 1e-9, .high = 1.0}} {}
  static StatusOr<std::unique_ptr<Compressor>> Create(const TopKConfig& config) {
    return std::make_unique<TopK>(config);
  }

  const CompressorTraits& traits() const override { return traits_; }
  double Delta(const TensorSpec& spec) const override {
    const int64_t d = spec.numel();
    return d ? static_cast<double>(KeepCount(config_.ratio, d)) / static_cast<double>(d) : 1;
  }
  double Omega(const TensorSpec&) const override { return std::numeric_limits<double>::infinity(); }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override {
    return BodyBytes(spec.numel());
  }

  StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView& message,
                                const CodecContext& context, MutableByteSpan body) const override {
    const int64_t d = message.numel();
    if (d == 0) return 0;
    if (d >= int64_t{1} << 32) return ConfigError("topk: a tensor has at most 2^32 - 1 elements");
    const int64_t size = BodyBytes(d);
    TW_CHECK_GE(static_cast<int64_t>(body.size()), size);
    const size_t k = static_cast<size_t>(KeepCount(config_.ratio, d));
    const auto taken =
        kernels::TakeTopK(message, k,
                          context.scratch->Get<kernels::IndexedValue>(
                              kScratchCodec0, kernels::TopKScratch(message.buffer.size(), k)));
    const int bits = IndexBits(static_cast<uint64_t>(d));
    StoreLE(body.data(), static_cast<uint32_t>(k));
    kernels::IndexWriter indices(body.data() + kIndicesAt, bits);
    uint8_t* values = body.data() + kIndicesAt + PackedIndexBytes(k, bits);
    for (const auto e : taken) {
      indices.Put(kernels::IndexOf(e));
      StoreLE(values, kernels::ValueBitsOf(e));
      values += sizeof(float);
    }
    indices.Finish();
    return size;
  }

  Status DecodeAdd(ByteSpan body, float scale, const CodecContext&,
                   std::span<float> out) const override {
    const int64_t d = static_cast<int64_t>(out.size());
    const size_t k = static_cast<size_t>(KeepCount(config_.ratio, d));
    if (static_cast<int64_t>(body.size()) != BodyBytes(d)) {
      return DataLoss("topk: body of " + std::to_string(body.size()) + " bytes, expected " +
                      std::to_string(BodyBytes(d)));
    }
    if (d == 0) return OkStatus();
    const uint32_t count = LoadLE<uint32_t>(body.data());
    if (count != k) {
      return DataLoss("topk: body of " + std::to_string(count) + " elements, expected " +
                      std::to_string(k));
    }
    const int bits = IndexBits(static_cast<uint64_t>(d));
    const ByteSpan packed = body.subspan(kIndicesAt, PackedIndexBytes(k, bits));
    if (!kernels::AscendingBelow(packed, bits, k, static_cast<uint64_t>(d))) {
      return DataLoss("topk: indices are not ascending below " + std::to_string(d));
    }
    kernels::AddAtIndices(out, scale, packed, bits, k, packed.data() + packed.size());
    return OkStatus();
  }

  // One selection, the largest, tells the others: its elements by magnitude.
  Status OptionErrors(std::span<const Compressor* const> options, std::span<const float> message,
                      const CodecContext& context, std::span<double> squared) const override {
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
  static constexpr size_t kIndicesAt = sizeof(uint32_t);

  int64_t BodyBytes(int64_t d) const {
    if (d == 0) return 0;
    const size_t k = static_cast<size_t>(KeepCount(config_.ratio, d));
    const size_t packed = PackedIndexBytes(k, IndexBits(static_cast<uint64_t>(d)));
    return static_cast<int64_t>(kIndicesAt + packed + k * sizeof(float));
  }

  TopKConfig config_;
  CompressorTraits traits_;
};

TW_REGISTER(Compressor, topk, /*wire_id=*/4, TopKConfig, TopK::Create,
            "the largest magnitudes, exactly, with packed indices");

}  // namespace
}  // namespace tw
