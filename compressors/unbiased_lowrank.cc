// unbiased_lowrank: a matrix times a few random directions that all ranks draw alike; what PowerSGD
// is compared with (Vogels, Karimireddy, Jaggi, arXiv 1905.13727, table 1).
//
//   M [m, n], r = min(rank, n);  U [n, r]: sqrt(n/r) times orthonormal columns with E[U U^T] = I,
//   drawn from (seed, step, parameter)
//   P = M U;   decode(body) = P U^T;   E decode = M,   E||decode - M||^2 = (n/r - 1) ||M||^2
// U is the Gram-Schmidt basis of r vectors whose elements are independent and symmetric around 0:
// the law of the projection onto their span does not change when coordinates are permuted or change
// sign, so its mean is r/n times the identity. Normal numbers that are not orthonormalized would
// have the larger variance (n+1)/r.
//
// Body, little-endian: fp32 P [m, r] row-major. U does not travel; bodies of several ranks add up.
// Because U is shared, the variance of the mean over ranks does not shrink with their number.
// No state. It does not contract, so it is nothing for ef14: that is what powersgd is for. Left
// out: U on the shorter side.

#include <algorithm>
#include <cmath>
#include <memory>

#include "core/api/compressor.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/lowrank.h"
#include "core/kernels/reduce.h"

namespace tw {
namespace {

struct UnbiasedLowRankConfig {
  int64_t rank = 4;
  static FieldList<UnbiasedLowRankConfig> Fields() {
    return FieldList<UnbiasedLowRankConfig>().Int("rank", &UnbiasedLowRankConfig::rank, {1, 1024},
                                                  "random directions a matrix is multiplied with");
  }
};

class UnbiasedLowRank : public Compressor {
 public:
  explicit UnbiasedLowRank(const UnbiasedLowRankConfig& config) : rank_(config.rank) {
    traits_.merges = {Merge::kSum, Merge::kGather};
    traits_.unbiased = true;
    traits_.exact_omega = true;
    traits_.exact_sum = true;
    traits_.fixed_size = true;
    traits_.matrix_only = true;
    traits_.knob = {
        .key = "rank", .value = static_cast<double>(rank_), .low = 1, .high = 1024, .whole = true};
  }
  static StatusOr<std::unique_ptr<Compressor>> Create(const UnbiasedLowRankConfig& config) {
    return std::make_unique<UnbiasedLowRank>(config);
  }

  const CompressorTraits& traits() const override { return traits_; }
  double Delta(const TensorSpec& spec) const override { return std::max(0.0, 1.0 - Omega(spec)); }
  double Omega(const TensorSpec& spec) const override {
    const kernels::LowRankShape shape = ShapeOf(spec);
    if (shape.rank == 0) return 0.0;
    return static_cast<double>(shape.cols) / static_cast<double>(shape.rank) - 1.0;
  }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override {
    const kernels::LowRankShape shape = ShapeOf(spec);
    return static_cast<int64_t>(sizeof(float)) * shape.rows * shape.rank;
  }

  StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView& message,
                                const CodecContext& context, MutableByteSpan body) const override {
    const kernels::LowRankShape shape = ShapeOf(*context.spec);
    TW_CHECK_EQ(shape.rows * shape.cols, message.numel());
    const int64_t bytes = MaxEncodedBytes(*context.spec, 0);
    TW_CHECK_LE(bytes, static_cast<int64_t>(body.size()));
    if (bytes == 0) return 0;
    const std::span<const float> ut = Directions(shape, context);
    const auto p =
        context.scratch->Get<float>(kScratchCodec0, static_cast<size_t>(shape.rows * shape.rank));
    kernels::MaterializeTimesQ(message, shape, ut.data(), p.data());
    kernels::OuterResidual(message.buffer.data(), shape, p.data(), ut.data());
    CopyBytes(body.data(), p.data(), static_cast<size_t>(bytes));
    return bytes;
  }

  Status DecodeAdd(ByteSpan body, float scale, const CodecContext& context,
                   std::span<float> out) const override {
    const kernels::LowRankShape shape = ShapeOf(*context.spec);
    const int64_t expected = MaxEncodedBytes(*context.spec, 0);
    if (static_cast<int64_t>(body.size()) != expected ||
        static_cast<int64_t>(out.size()) != shape.rows * shape.cols) {
      return DataLoss("unbiased_lowrank: body of " + std::to_string(body.size()) +
                      " bytes, expected " + std::to_string(expected));
    }
    if (expected == 0) return OkStatus();
    // Bodies lie at any address.
    const auto p = context.scratch->Get<float>(kScratchCodec0, body.size() / sizeof(float));
    CopyBytes(p.data(), body.data(), body.size());
    kernels::OuterAdd(out.data(), shape, p.data(), Directions(shape, context).data(), scale);
    return OkStatus();
  }

  // Their expectation: that of one draw says little about the next.
  Status OptionErrors(std::span<const Compressor* const> options, std::span<const float> message,
                      const CodecContext& context, std::span<double> squared) const override {
    const double norm = kernels::SumOfSquares(message);
    for (size_t i = 0; i < options.size(); ++i) {
      squared[i] = options[i]->Omega(*context.spec) * norm;
    }
    return OkStatus();
  }

 private:
  kernels::LowRankShape ShapeOf(const TensorSpec& spec) const {
    return {spec.rows(), spec.cols(), std::min(rank_, spec.cols())};
  }

  // U^T [rank, cols]. On the host, vectors that depend on each other are drawn again, as good as
  // never; a device does not wait for being asked, and such a direction sends nothing.
  static std::span<const float> Directions(const kernels::LowRankShape& shape,
                                           const CodecContext& context) {
    const uint64_t key = context.SharedStream().key;
    const size_t n = static_cast<size_t>(shape.cols), r = static_cast<size_t>(shape.rank);
    const auto u = context.scratch->Get<float>(kScratchCodec2, n * r);
    const auto ut = context.scratch->Get<float>(kScratchCodec1, n * r);
    const auto wide = context.scratch->Get<double>(kScratchCodec3, n * r);
    const float length = static_cast<float>(std::sqrt(static_cast<double>(n) / r));
    for (uint64_t first = 0;; first += n * r) {
      kernels::DrawUniform(u, key, first);
      kernels::Orthonormalize(u, shape.cols, shape.rank, wide);
      kernels::TransposeScaled(u.data(), shape.cols, shape.rank, length, ut.data());
      if (kernels::OnDevice() || NoRowIsZero(ut, n)) return ut;
    }
  }
  static bool NoRowIsZero(std::span<const float> matrix, size_t cols) {
    for (size_t at = 0; at < matrix.size(); at += cols) {
      const auto row = matrix.subspan(at, cols);
      if (std::all_of(row.begin(), row.end(), [](float x) { return x == 0; })) return false;
    }
    return true;
  }

  int64_t rank_;
  CompressorTraits traits_;
};

TW_REGISTER(Compressor, unbiased_lowrank, /*wire_id=*/16, UnbiasedLowRankConfig,
            UnbiasedLowRank::Create, "a matrix times random directions that all ranks draw alike");

}  // namespace
}  // namespace tw
