// threshold: every element above a fixed magnitude (Dutta et al., arXiv 2108.00951).
//
//   S = { i : |x_i| > lambda }
//   decode(body)_i = x_i for i in S, else 0       ||C(x)-x||^2 <= d lambda^2; no contraction factor
//
// Body, little-endian: u32 m = |S| | m ascending indices of ceil(log2 d) bits each, least
// significant bit first, padded with zero bits to a byte | m fp32 values in index order.
// Where that would not be smaller than all values, u32 0xFFFFFFFF and the d fp32 values travel, and
// the residual is zero. The size varies from step to step, and a device is waited for to know it.
// No state.

#include <algorithm>
#include <limits>

#include "core/api/compressor.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/index_pack.h"
#include "core/kernels/topk.h"

namespace tw {
namespace {

using kernels::IndexBits;
using kernels::IndexedValue;
using kernels::kTakeSlack;
using kernels::PackedIndexBytes;

constexpr uint32_t kDense = 0xFFFFFFFFu;
constexpr size_t kIndicesAt = sizeof(uint32_t);

struct ThresholdConfig {
  double lambda = 1e-3;
  static FieldList<ThresholdConfig> Fields() {
    return FieldList<ThresholdConfig>().Real("lambda", &ThresholdConfig::lambda,
                                             {0, std::numeric_limits<float>::max()},
                                             "elements of a larger magnitude travel");
  }
};

size_t SparseBytes(size_t m, size_t d) {
  return PackedIndexBytes(m, IndexBits(d)) + m * sizeof(float);
}

class Threshold : public Compressor {
 public:
  explicit Threshold(const ThresholdConfig& config)
      : threshold_(static_cast<float>(config.lambda)) {}
  static StatusOr<std::unique_ptr<Compressor>> Create(const ThresholdConfig& config) {
    return std::make_unique<Threshold>(config);
  }

  const CompressorTraits& traits() const override {
    static const CompressorTraits traits = {.merges = {Merge::kGather, Merge::kSparse}};
    return traits;
  }
  double Delta(const TensorSpec&) const override { return 0; }
  double Omega(const TensorSpec&) const override { return std::numeric_limits<double>::infinity(); }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override {
    const int64_t d = spec.numel();
    return d ? static_cast<int64_t>(kIndicesAt) + d * DTypeBytes(DType::kF32) : 0;
  }

  StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView& message,
                                const CodecContext& context, MutableByteSpan body) const override {
    const size_t d = message.buffer.size();
    if (d == 0) return 0;
    if (d >= size_t{1} << 32) {
      return ConfigError("threshold: a tensor has at most 2^32 - 1 elements");
    }
    TW_CHECK_GE(body.size(), kIndicesAt + d * sizeof(float));
    // The most elements for which indices pay off; room for fewer is tried first.
    const size_t most = (32 * d - 1) / static_cast<size_t>(32 + IndexBits(d));
    auto room = context.scratch->Get<IndexedValue>(
        kScratchCodec0, std::min(most, std::max<size_t>(d / 16, 1024)) + kTakeSlack);
    size_t count = kernels::TakeAbove(message, threshold_, room);
    if (count + kTakeSlack > room.size()) {
      const MessageView added = {message.buffer};
      if (count > most) {
        PutNumber(body.data(), kDense);
        kernels::MoveOut(added.buffer, nullptr, 1.0f, body.data() + kIndicesAt);
        return static_cast<int64_t>(kIndicesAt + d * sizeof(float));
      }
      room = context.scratch->Get<IndexedValue>(kScratchCodec0, count + kTakeSlack);
      TW_CHECK_EQ(kernels::TakeAbove(added, threshold_, room), count);
    }
    PutNumber(body.data(), static_cast<uint32_t>(count));
    kernels::PackEntries(room.first(count), IndexBits(d), body.data() + kIndicesAt,
                         body.data() + kIndicesAt + PackedIndexBytes(count, IndexBits(d)));
    return static_cast<int64_t>(kIndicesAt + SparseBytes(count, d));
  }

  Status DecodeAdd(ByteSpan body, float scale, const CodecContext&,
                   std::span<float> out) const override {
    TW_ASSIGN_OR_RETURN(const uint32_t count, CheckedCount(body, out.size()));
    if (out.empty()) return OkStatus();
    if (count == kDense) {
      kernels::AddFromBytes(out, scale, body.data() + kIndicesAt);
      return OkStatus();
    }
    const ByteSpan packed =
        body.subspan(kIndicesAt, PackedIndexBytes(count, IndexBits(out.size())));
    kernels::AddAtIndices(out, scale, packed, IndexBits(out.size()), count,
                          packed.data() + packed.size());
    return OkStatus();
  }

  StatusOr<size_t> ListEntries(ByteSpan body, const CodecContext& context,
                               std::span<IndexedValue> out) const override {
    const size_t d = static_cast<size_t>(context.spec->numel());
    TW_ASSIGN_OR_RETURN(const uint32_t count, CheckedCount(body, d));
    if (d == 0) return size_t{0};
    const size_t entries = count == kDense ? d : count;
    if (out.size() < entries) return entries;
    size_t at = 0;
    const auto put = [&](uint32_t index, float value) {
      out[at++] = kernels::MakeIndexedValue(index, value);
    };
    if (count == kDense) {
      for (size_t i = 0; i < d; ++i) {
        put(static_cast<uint32_t>(i), LoadLE<float>(body.data() + kIndicesAt + i * sizeof(float)));
      }
    } else {
      ForEach(body, d, put);
    }
    return entries;
  }

 private:
  // The count at the front of a body whose length fits it; on the host its indices are looked at
  // too. Waits for a device.
  static StatusOr<uint32_t> CheckedCount(ByteSpan body, size_t d) {
    if (d == 0 && body.empty()) return uint32_t{0};
    if (body.size() < kIndicesAt) return DataLoss("threshold: body without a count");
    const uint32_t count = GetNumber<uint32_t>(body.data());
    const size_t expected =
        kIndicesAt + (count == kDense ? d * sizeof(float) : SparseBytes(count, d));
    if (body.size() != expected || d == 0 || (count != kDense && count > d)) {
      return DataLoss("threshold: body of " + std::to_string(body.size()) + " bytes for " +
                      std::to_string(count) + " of " + std::to_string(d) + " elements");
    }
    if (count == kDense || kernels::OnDevice()) return count;
    const ByteSpan packed = body.subspan(kIndicesAt, PackedIndexBytes(count, IndexBits(d)));
    if (!kernels::AscendingBelow(packed, IndexBits(d), count, d)) {
      return DataLoss("threshold: indices are not ascending below " + std::to_string(d));
    }
    return count;
  }
  // take(index, value) for each element of a checked body that is not dense.
  template <class Take>
  static void ForEach(ByteSpan body, size_t d, Take take) {
    const uint32_t count = LoadLE<uint32_t>(body.data());
    const ByteSpan packed = body.subspan(kIndicesAt, PackedIndexBytes(count, IndexBits(d)));
    kernels::IndexReader indices(packed, IndexBits(d));
    const uint8_t* values = packed.data() + packed.size();
    for (uint32_t j = 0; j < count; ++j, values += sizeof(float)) {
      take(indices.Next(), LoadLE<float>(values));
    }
  }

  float threshold_;
};

TW_REGISTER(Compressor, threshold, /*wire_id=*/6, ThresholdConfig, Threshold::Create,
            "elements above a fixed magnitude; the size varies");

}  // namespace
}  // namespace tw
