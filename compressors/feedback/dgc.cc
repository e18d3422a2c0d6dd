// dgc: Deep Gradient Compression, Lin, Han, Mao, Wang, Dally, arXiv 1712.01887. Momentum is kept
// before the compression, where it belongs to the gradient and not to the moment it is sent.
//   u <- momentum*u + g;   message = v + u;   v <- message - decode(own body);   estimate = mean
//   masking: u_i <- 0 where element i was sent, so that stale momentum does not push it again
// With momentum = 0 it is ef14, bit for bit. The optimizer should have no momentum of its own.
// clip > 0: each rank's gradient of each parameter is clipped to the norm clip/sqrt(ranks) first
// (the paper's factor, its norm is that of all parameters); never the message, which would lose
// what is cut off. An element counts as sent where its body decodes to something other than zero:
// under a codec that sends all elements masking leaves no momentum, and a warning says so. State: v
// as ef14's e, and u, both shaped as the parameter, per rank, in gradient units; fp32, fp64 for
// fp64 parameters. Ratio warm-up: planner.name = "warmup". Left out: Nesterov's form.

#include <cmath>

#include "compressors/feedback/ef21_family.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/reduce.h"

namespace tw {
namespace {

struct DgcConfig {
  double momentum = 0.9;
  bool masking = true;
  double clip = 0;
  static FieldList<DgcConfig> Fields() {
    return FieldList<DgcConfig>()
        .Real("momentum", &DgcConfig::momentum, {0, 1, kOpenHigh}, "of the gradient, kept by rank")
        .Bool("masking", &DgcConfig::masking, "momentum of elements that were sent starts anew")
        .Real("clip", &DgcConfig::clip, {0},
              "norm to which each rank's gradient of a parameter is clipped before; 0: off");
  }
};

class Dgc : public FeedbackPolicy {
 public:
  explicit Dgc(const DgcConfig& config) : config_(config) {
    traits_.needs_contraction = true;
    traits_.state_floats = config.momentum > 0 ? 2 : 1;
  }
  const FeedbackTraits& traits() const override { return traits_; }

  Message Compose(TensorView grad, const FeedbackContext& context) const override {
    if (config_.clip > 0) Clip(grad, config_.clip);
    const TensorView v = FeedbackSlot(context, "v", Reshard::kKeepMean);
    if (config_.momentum == 0) return {.buffer = v, .addend = grad, .scale = 1.0f};
    const TensorView u = FeedbackSlot(context, "u", Reshard::kKeepMean);
    WithStateType(u, [&](auto zero) {
      using T = decltype(zero);
      const T momentum = static_cast<T>(config_.momentum);
      if (grad.dtype == u.dtype) {
        kernels::ErrorMemory(Elements<T>(u), Elements<const T>(grad), momentum);
      } else {
        ScaleBy(Elements<T>(u), momentum);
        AddScaled(u, grad, 1.0f);
      }
    });
    return {.buffer = v, .addend = u, .scale = 1.0f};
  }

  Status Absorb(OwnDecoder own, TensorView, const FeedbackContext& context) const override {
    if (config_.momentum == 0 || !config_.masking) return OkStatus();
    const TensorView u = FeedbackSlot(context, "u", Reshard::kKeepMean);
    const size_t bytes = static_cast<size_t>(u.bytes());
    const TensorView sent{context.scratch->Get<uint8_t>(kScratchFeedback, bytes).data(), u.dtype,
                          u.numel};
    FillZero(sent);
    TW_RETURN_IF_ERROR(own(1.0f, sent));
    if (auto* device = kernels::OnDevice()) {
      device->ZeroWhere(u.f32(), sent.f32());
      return OkStatus();
    }
    WithStateType(u, [&](auto zero) {
      using T = decltype(zero);
      const std::span<T> momentum = Elements<T>(u), decoded = Elements<T>(sent);
      for (size_t i = 0; i < momentum.size(); ++i) {
        if (decoded[i] != 0) momentum[i] = 0;
      }
    });
    return OkStatus();
  }

  std::vector<std::string> Warnings(const TensorSpec&,
                                    const Compressor& compressor) const override {
    const auto& merges = compressor.traits().merges;
    const bool sparse = std::find(merges.begin(), merges.end(), Merge::kSparse) != merges.end();
    if (config_.momentum == 0 || !config_.masking || sparse) return {};
    return {
        "feedback dgc clears the momentum of what is sent, and this compressor sends about "
        "everything: with feedback.masking = true no momentum is left"};
  }

 private:
  static void ScaleBy(std::span<float> x, float factor) { kernels::Scale(x, factor); }
  static void ScaleBy(std::span<double> x, double factor) {
    for (double& v : x) v *= factor;
  }

  static void Clip(TensorView grad, double limit) {
    if (auto* device = kernels::OnDevice()) return device->ClipToNorm(grad, limit);
    double squares = 0;
    if (grad.dtype == DType::kF32) {
      squares = kernels::SumOfSquares(grad.f32());
    } else {
      constexpr int64_t kPiece = 256;
      double piece[kPiece];
      for (int64_t at = 0; at < grad.numel; at += kPiece) {
        const int64_t n = std::min(kPiece, grad.numel - at);
        const TensorView copy{piece, DType::kF64, n};
        FillZero(copy);
        AddScaled(copy,
                  {static_cast<uint8_t*>(grad.data) + at * DTypeBytes(grad.dtype), grad.dtype, n},
                  1.0f);
        for (int64_t i = 0; i < n; ++i) squares += piece[i] * piece[i];
      }
    }
    const double norm = std::sqrt(squares);
    if (norm > limit) AddScaled(grad, grad, static_cast<float>(limit / norm - 1));
  }

  DgcConfig config_;
  FeedbackTraits traits_;
};

StatusOr<std::unique_ptr<FeedbackPolicy>> Create(const DgcConfig& config) {
  return std::make_unique<Dgc>(config);
}

TW_REGISTER(FeedbackPolicy, dgc, 0, DgcConfig, Create,
            "ef14 with each rank's own momentum in front of the compression, cleared where sent");

}  // namespace
}  // namespace tw
