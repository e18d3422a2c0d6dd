// powersgd: low-rank approximation by one warm-started step of power iteration.
//
// Vogels, Karimireddy, Jaggi, arXiv 1905.13727. M = gradient + error as a matrix [m, n], r = rank:
//   round 0   P_i = M_i Q                     bodies summed over ranks: P
//   round 1   P = orthonormal columns of P,   Q_i = M_i^T P, summed: Q
//   decode    P (Q / ranks)^T, the same on every rank; its Q, columns scaled to length 1, starts
//             the next step
// Residual: the local M_i - P Q_i^T, so that sum_i E_i + ranks * decoded = sum_i M_i.
// Bodies: round 0 fp32 P [m, r] row-major; round 1 fp32 Q^T [r, n] row-major. They add up.
// State: "q" fp32 [r, n], the start of the next step; "p" fp32 [m, r], the basis between round 1
// and decoding. Both are functions of sums over ranks only, hence replicated.
// Orthonormalization: modified Gram-Schmidt twice, in fp64. A column that is zero or depends on
// others becomes zero and sends nothing; its q column is drawn afresh from the shared stream.
// Rank is cut to min(m, n); there, or wherever r (m + n) >= m n, the bodies are no smaller than the
// matrix and the plan sends it dense.
// No worst-case contraction: Q may be orthogonal to M. Left out: several matrices in one batch,
// alternating left and right products, more than one power step.

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "core/api/compressor.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/eigenvalues.h"
#include "core/kernels/lowrank.h"
#include "core/kernels/reduce.h"

namespace tw {
namespace {

struct PowerSgdConfig {
  int64_t rank = 4;
  bool warm_start = true;
  static FieldList<PowerSgdConfig> Fields() {
    return FieldList<PowerSgdConfig>()
        .Int("rank", &PowerSgdConfig::rank, {1, 1024}, "columns of the factors")
        .Bool("warm_start", &PowerSgdConfig::warm_start,
              "start from the last step's Q; false draws a new one every step");
  }
};

std::span<float> AsFloats(ByteSpan body, Workspace& scratch, int slot) {
  // Bodies lie at any address.
  const auto copy = scratch.Get<float>(slot, body.size() / sizeof(float));
  CopyBytes(copy.data(), body.data(), body.size());
  return copy;
}

class PowerSgd : public Compressor {
 public:
  static StatusOr<std::unique_ptr<Compressor>> Create(const PowerSgdConfig& config) {
    return std::unique_ptr<Compressor>(new PowerSgd(config));
  }

  const CompressorTraits& traits() const override { return traits_; }
  double Delta(const TensorSpec&) const override { return 0.0; }
  double Omega(const TensorSpec&) const override { return std::numeric_limits<double>::infinity(); }

  int64_t MaxEncodedBytes(const TensorSpec& spec, int round) const override {
    const kernels::LowRankShape shape = ShapeOf(spec);
    return static_cast<int64_t>(sizeof(float)) * shape.rank *
           (round == 0 ? shape.rows : shape.cols);
  }

  StatusOr<int64_t> EncodeRound(int round, ByteSpan reduced, const MessageView& message,
                                const CodecContext& context, MutableByteSpan body) const override {
    const kernels::LowRankShape shape = ShapeOf(*context.spec);
    TW_CHECK_EQ(shape.rows * shape.cols, message.numel());
    const int64_t bytes = MaxEncodedBytes(*context.spec, round);
    TW_CHECK_LE(bytes, static_cast<int64_t>(body.size()));
    if (bytes == 0) return 0;
    if (round == 0) {
      const std::span<float> qt = StartingQ(shape, context);
      const auto p = context.scratch->Get<float>(kScratchCodec0, shape.rows * shape.rank);
      kernels::MaterializeTimesQ(message, shape, qt.data(), p.data());
      CopyBytes(body.data(), p.data(), static_cast<size_t>(bytes));
      return bytes;
    }
    const std::span<float> p = Basis(shape, context);
    if (reduced.size() != p.size_bytes()) {
      return DataLoss("powersgd: the sum of P has " + std::to_string(reduced.size()) +
                      " bytes, expected " + std::to_string(p.size_bytes()));
    }
    CopyBytes(p.data(), reduced.data(), reduced.size());
    kernels::Orthonormalize(p, shape.rows, shape.rank,
                            context.scratch->Get<double>(kScratchCodec0, p.size()));
    const auto qt = context.scratch->Get<float>(kScratchCodec1, shape.rank * shape.cols);
    kernels::TransposeTimesM(message.buffer.data(), shape, p.data(), qt.data());
    kernels::OuterResidual(message.buffer.data(), shape, p.data(), qt.data());
    CopyBytes(body.data(), qt.data(), static_cast<size_t>(bytes));
    return bytes;
  }

  Status DecodeAdd(ByteSpan body, float scale, const CodecContext& context,
                   std::span<float> out) const override {
    const kernels::LowRankShape shape = ShapeOf(*context.spec);
    const int64_t expected = MaxEncodedBytes(*context.spec, 1);
    if (static_cast<int64_t>(body.size()) != expected ||
        static_cast<int64_t>(out.size()) != shape.rows * shape.cols) {
      return DataLoss("powersgd: Q has " + std::to_string(body.size()) + " bytes, expected " +
                      std::to_string(expected));
    }
    if (expected == 0) return OkStatus();
    const auto qt = AsFloats(body, *context.scratch, kScratchCodec1);
    if (kernels::DeviceKernels* device = kernels::OnDevice()) {
      device->CheckFinite(ViewOf(qt));
    } else if (!kernels::AllFinite(qt)) {
      return DataLoss("powersgd: Q is not finite");
    }
    kernels::OuterAdd(out.data(), shape, Basis(shape, context).data(), qt.data(), scale);
    if (context.mean && warm_start_) KeepForNextStep(qt, shape, context);
    return OkStatus();
  }

  // The best approximation of each rank, by a few steps of subspace iteration: within its space the
  // squared singular values are the eigenvalues of the Gram matrix of P^T M, a small one.
  //   error_r^2 = ||M||^2 - sum_{j <= r} s_j^2
  Status OptionErrors(std::span<const Compressor* const> options, std::span<const float> message,
                      const CodecContext& context, std::span<double> squared) const override {
    constexpr int64_t kOversampling = 4;
    constexpr int kIterations = 3;
    double most = 1;
    for (const Compressor* option : options) most = std::max(most, option->traits().knob.value);
    kernels::LowRankShape shape = {context.spec->rows(), context.spec->cols(), 0};
    shape.rank = std::min({static_cast<int64_t>(most) + kOversampling, shape.rows, shape.cols});
    std::fill(squared.begin(), squared.end(), 0.0);
    if (shape.rank == 0) return OkStatus();
    const size_t k = static_cast<size_t>(shape.rank);
    // The products take a message; without an addend they only read it.
    const std::span<float> m(const_cast<float*>(message.data()), message.size());
    const auto qt = context.scratch->Get<float>(kScratchCodec1, shape.rank * shape.cols);
    const auto p = context.scratch->Get<float>(kScratchCodec0, shape.rows * shape.rank);
    kernels::UnitRows(nullptr, shape.rank, shape.cols, DrawKey(context), qt.data());
    for (int i = 0; i < kIterations; ++i) {
      kernels::MaterializeTimesQ({m, nullptr, 1.0f}, shape, qt.data(), p.data());
      kernels::Orthonormalize(p, shape.rows, shape.rank,
                              context.scratch->Get<double>(kScratchCodec2, p.size()));
      kernels::TransposeTimesM(m.data(), shape, p.data(), qt.data());
    }
    std::vector<double> gram(k * k), values(k);
    for (size_t a = 0; a < k; ++a) {
      for (size_t b = a; b < k; ++b) {
        double dot = 0;
        const float* x = qt.data() + a * static_cast<size_t>(shape.cols);
        const float* y = qt.data() + b * static_cast<size_t>(shape.cols);
        for (int64_t j = 0; j < shape.cols; ++j) dot += static_cast<double>(x[j]) * y[j];
        gram[a * k + b] = gram[b * k + a] = dot;
      }
    }
    kernels::SymmetricEigenvalues(gram, values);
    const double whole = kernels::SumOfSquares(message);
    for (size_t i = 0; i < options.size(); ++i) {
      const size_t rank = std::min(static_cast<size_t>(options[i]->traits().knob.value), k);
      double kept = 0;
      for (size_t j = 0; j < rank; ++j) kept += values[j];
      squared[i] = std::max(0.0, whole - kept);
    }
    return OkStatus();
  }

  // Columns that both ranks have stay; more are drawn from the shared stream.
  void TakeOver(const CodecContext& context) const override {
    const kernels::LowRankShape shape = ShapeOf(*context.spec);
    StateBag& bag = *context.state->bag();
    const std::string q = context.state->prefix() + "q", p = context.state->prefix() + "p";
    const StateSlot* old = bag.Find(q);
    if (!old || old->shape[0] == shape.rank) return;
    const int64_t common = std::min(old->shape[0], shape.rank);
    std::vector<float> kept(old->view.f32().begin(), old->view.f32().end());
    bag.Erase(q);
    bag.Erase(p);
    const std::span<float> qt =
        context.state->Slot("q", {shape.rank, shape.cols}, DType::kF32, Reshard::kReplicated).f32();
    kernels::UnitRows(nullptr, shape.rank, shape.cols, DrawKey(context), qt.data());
    std::copy_n(kept.begin(), common * shape.cols, qt.begin());
  }

 private:
  explicit PowerSgd(const PowerSgdConfig& config)
      : rank_(config.rank), warm_start_(config.warm_start) {
    traits_.merges = {Merge::kSum};
    traits_.exact_sum = true;
    traits_.fixed_size = true;
    traits_.matrix_only = true;
    traits_.rounds = 2;
    traits_.knob = {
        .key = "rank", .value = static_cast<double>(rank_), .low = 1, .high = 1024, .whole = true};
  }

  kernels::LowRankShape ShapeOf(const TensorSpec& spec) const {
    const int64_t rows = spec.rows(), cols = spec.cols();
    return {rows, cols, std::min({rank_, rows, cols})};
  }
  static std::span<float> Basis(const kernels::LowRankShape& shape, const CodecContext& context) {
    return context.state->Slot("p", {shape.rows, shape.rank}, DType::kF32, Reshard::kReplicated)
        .f32();
  }
  std::span<float> StartingQ(const kernels::LowRankShape& shape,
                             const CodecContext& context) const {
    bool created = false;
    const std::span<float> qt =
        context.state
            ->Slot("q", {shape.rank, shape.cols}, DType::kF32, Reshard::kReplicated, &created)
            .f32();
    if (created || !warm_start_) {
      kernels::UnitRows(nullptr, shape.rank, shape.cols, DrawKey(context), qt.data());
    }
    return qt;
  }
  // Of the random directions that all ranks agree on.
  static uint64_t DrawKey(const CodecContext& context) {
    return RngStream::Of(context.seed, RngPurpose::kFactorInit, context.step, context.spec->id,
                         kSharedRank)
        .key;
  }
  // Unit columns keep P in the range of M's numbers, however small gradients become.
  static void KeepForNextStep(std::span<const float> sum, const kernels::LowRankShape& shape,
                              const CodecContext& context) {
    const std::span<float> qt =
        context.state->Slot("q", {shape.rank, shape.cols}, DType::kF32, Reshard::kReplicated).f32();
    kernels::UnitRows(sum.data(), shape.rank, shape.cols, DrawKey(context), qt.data());
  }

  int64_t rank_;
  bool warm_start_;
  CompressorTraits traits_;
};

TW_REGISTER(Compressor, powersgd, /*wire_id=*/13, PowerSgdConfig, PowerSgd::Create,
            "low-rank factors by warm-started power iteration");

}  // namespace
}  // namespace tw
