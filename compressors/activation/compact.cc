// compact: linear layers keep a random projection of their input, from which a sketch of the weight
// gradient follows (Shamshoum, Hodos et al., "CompAct", NAACL 2025, arXiv 2410.15352).
//   P = randn(n, r) / sqrt(r)                   r = round(n * compact_rank), at least 1
//   forward   keep z = x P [tokens, r]          backward   G' = dy^T z = G P [m, r]
//   update    W <- keep * W + compact_scale * U P^T          U: the optimizer's, on G'
// E[P P^T] = 1, so G' P^T is an unbiased estimate of G; E|G' P^T - G|^2 = (n + 1)/r |G|^2, and
// E|G'|^2 = |G|^2. P is the same on all ranks: the mean of their sketches is the sketch of their
// mean gradient.
// P is never stored: it is numbers of the stream (seed, step / compact_gap, input), see
// core/kernels/normal.h. Element (j, k) is number j % 64 of block (j / 64) * r + k, so that strips
// of 64 rows of P are made on their own, transposed. z and G' have x's dtype (bf16 under autocast,
// where P is rounded to it for the product). Moments stay as they are when P changes.
// Left out: projections by singular vectors, a scale for layers that are not compressed.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "core/api/activation_codec.h"
#include "core/api/tensor_scope.h"
#include "core/base/rng.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/expand.h"
#include "core/kernels/normal.h"

namespace tw {
namespace {

static_assert(kernels::kStripCols == kernels::kNormalBlock);
constexpr int64_t kStrip = kernels::kStripCols;
constexpr uint32_t kNoParameter = 0x80000000u;  // keeps inputs' streams apart from parameters'
constexpr int64_t kTileFloats = 1 << 16;        // of P at once, unless one strip has more
constexpr int64_t kQueuedTileFloats = 1 << 22;  // on a device: few and large products

struct CompactConfig {
  double compact_rank = 0.25;
  int64_t compact_gap = 50;
  double compact_scale = 1;
  static FieldList<CompactConfig> Fields() {
    return FieldList<CompactConfig>()
        .Real("compact_rank", &CompactConfig::compact_rank, {0, 1, kOpenLow},
              "columns kept of a linear layer's input, as a fraction of its features")
        .Int("compact_gap", &CompactConfig::compact_gap, {1}, "steps between new projections")
        .Real("compact_scale", &CompactConfig::compact_scale, {0, 1e6, kOpenLow},
              "factor on the updates of compressed layers");
  }
};

class Compact : public ActivationCodec {
 public:
  explicit Compact(const CompactConfig& config) : config_(config) {}

  int64_t GradientColumns(int64_t n) const override {
    return std::max<int64_t>(1, std::llround(static_cast<double>(n) * config_.compact_rank));
  }

  std::vector<at::Tensor> Pack(const at::Tensor& x, const InputKey& key) const override {
    const int64_t n = x.size(1), r = GradientColumns(n);
    const int64_t floats = QueueOf(x) ? kQueuedTileFloats : kTileFloats;
    const int64_t tile = std::max<int64_t>(1, floats / (r * kStrip)) * kStrip;
    // A tile of P, transposed.
    const at::Tensor strips =
        at::empty({r, std::min(tile, NumStrips(n) * kStrip)}, x.options().dtype(at::kFloat));
    at::Tensor z = at::zeros({x.size(0), r}, x.options());
    for (int64_t from = 0; from < n; from += tile) {
      const int64_t width = std::min(tile, n - from);
      {
        const TensorScope scope(x);
        Together together;
        for (int64_t j = 0; j < width; j += kStrip) {
          together.Next();
          FillStrips(n, (from + j) / kStrip, 1, key, strips.data_ptr<float>() + j, strips.size(1));
        }
      }
      const at::Tensor p = strips.narrow(1, 0, width).to(x.scalar_type());
      z.addmm_(x.narrow(1, from, width), p.t());
    }
    return {z};
  }

  at::Tensor WeightGradient(std::span<const at::Tensor> packed, int64_t,
                            const at::Tensor& dy) const override {
    return dy.t().mm(packed[0]);
  }

  // Every strip of columns is an element's whole sum: the bits do not depend on who computes it.
  void Expand(TensorView value, int64_t n, double keep, TensorView update, const InputKey& key,
              at::Device on) const override {
    const int64_t r = GradientColumns(n), m = value.numel / n;
    TW_CHECK_EQ(update.numel, m * r);
    const auto kept = static_cast<float>(keep), scale = static_cast<float>(config_.compact_scale);
    if (auto* device = kernels::OnDevice()) {
      const at::Tensor strips =
          at::empty({NumStrips(n), r, kStrip}, at::TensorOptions(on).dtype(at::kFloat));
      TW_CHECK(QueueOf(strips) == CurrentQueue());  // or strips are given back too early
      FillStrips(n, 0, NumStrips(n), key, strips.data_ptr<float>(), kStrip);
      return device->Expand(value.f32().data(), m, n, update.f32().data(), r,
                            strips.const_data_ptr<float>(), kept, scale);
    }
    at::parallel_for(0, NumStrips(n), 1, [&](int64_t begin, int64_t end) {
      const at::Tensor strip = at::empty({r, kStrip}, at::kFloat);
      for (int64_t s = begin; s < end; ++s) {
        FillStrips(n, s, 1, key, strip.data_ptr<float>(), kStrip);
        kernels::ExpandStrip(value.f32().data() + s * kStrip,
                             {m, r, std::min(kStrip, n - s * kStrip), n}, update.f32().data(),
                             strip.data_ptr<float>(), kept, scale);
      }
    });
  }

 private:
  static int64_t NumStrips(int64_t n) { return (n + kStrip - 1) / kStrip; }
  // Strips of P, each 64 rows of it transposed, [r, 64], one below the other.
  void FillStrips(int64_t n, int64_t first, int64_t count, const InputKey& key, float* out,
                  int64_t stride) const {
    const int64_t r = GradientColumns(n);
    const uint64_t epoch = key.step / static_cast<uint64_t>(config_.compact_gap);
    const RngStream stream = RngStream::Of(key.seed, RngPurpose::kEncodeShared, epoch,
                                           key.input | kNoParameter, kSharedRank);
    kernels::FillNormal(stream.key, static_cast<uint64_t>(first * r), count * r,
                        static_cast<float>(1 / std::sqrt(static_cast<double>(r))), out, stride);
  }

  CompactConfig config_;
};

StatusOr<std::unique_ptr<ActivationCodec>> Create(const CompactConfig& config) {
  return std::make_unique<Compact>(config);
}

TW_REGISTER(ActivationCodec, compact, 0, CompactConfig, Create,
            "linear layers keep a random projection of their inputs; gradients and moments shrink "
            "with it");

}  // namespace
}  // namespace tw
