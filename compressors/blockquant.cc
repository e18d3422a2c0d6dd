// blockquant: uniform quantization in blocks with one scale each.
//
// Bucketed uniform quantization after QSGD (Alistarh et al., arXiv 1610.02132); the interleaving of
// scales and codes is ours.
//   s = max |x| over the block,  step = s / L,  L = 2^(bits-1) - 1
//   code = round(x / step) + 2^(bits-1);  to nearest even, or at random so that the mean is x
//   bits = 1: +-s by the sign (sign(0) = +1), s = mean |x| to nearest; s = max |x| and
//             P(+s) = (1 + x/s)/2 at random
// Body: for every block of `block` elements [fp32 s][codes, bits bits each, little-endian]; the
// last block is as long as its elements need. A chunk cut on the block grid is a piece of the body.
// Zero is on the grid (bits >= 2): zeros stay zeros, and |error| <= min(|x|, step/2) to nearest.
//   nearest: delta >= 4L^2 / (4L^2 + B - 1)       (one element s, B-1 of them step/2)
//   random:  omega <= (sqrt(1 + (B-1)/L^2) - 1)/2 (B-1 elements at the worst place in a step)
//   one bit: delta >= 1/B to nearest, omega <= B - 1 at random
// Random numbers: element i of the parameter draws number i of the stream, whatever the chunk.
// State slots: none. Left out: min-max (asymmetric) grids, entropy coding.

#include <cmath>
#include <limits>
#include <memory>

#include "compressors/quantized.h"

namespace tw {
namespace {

struct BlockQuantConfig {
  int64_t bits = 4;
  int64_t block = 128;
  std::string rounding = "nearest";
  static FieldList<BlockQuantConfig> Fields() {
    return FieldList<BlockQuantConfig>()
        .Int("bits", &BlockQuantConfig::bits, {1, 8}, "bits of a code")
        .Int("block", &BlockQuantConfig::block, {8, 65536},
             "elements that share a scale, a multiple of 8")
        .Text("rounding", &BlockQuantConfig::rounding, {"nearest", "stochastic"},
              "nearest has the smaller error, stochastic is unbiased");
  }
};

class BlockQuant : public QuantizedCodec {
 public:
  static StatusOr<std::unique_ptr<Compressor>> Create(const BlockQuantConfig& config) {
    if (config.block % 8 != 0) {
      return ConfigError("compressor.block = " + std::to_string(config.block) +
                         " is not a multiple of 8");
    }
    kernels::QuantizeSpec quant;
    quant.bits = static_cast<int>(config.bits);
    quant.levels = config.bits == 1 ? 1 : (1 << (config.bits - 1)) - 1;
    quant.block = config.block;
    quant.stochastic = config.rounding == "stochastic";
    quant.scale = config.bits == 1 && !quant.stochastic ? kernels::ScaleRule::kMeanAbs
                                                        : kernels::ScaleRule::kMaxAbs;
    return std::unique_ptr<Compressor>(new BlockQuant(quant));
  }

  double Delta(const TensorSpec& spec) const override {
    const double b = Longest(spec);
    if (quant_.stochastic) return std::max(0.0, 1.0 - Omega(spec));
    if (quant_.bits == 1) return 1.0 / b;
    const double levels = quant_.levels;
    return 4 * levels * levels / (4 * levels * levels + b - 1);
  }
  double Omega(const TensorSpec& spec) const override {
    if (!quant_.stochastic) return std::numeric_limits<double>::infinity();
    const double b = Longest(spec);
    if (quant_.bits == 1) return b - 1;
    const double levels = quant_.levels;
    return (std::sqrt(1.0 + (b - 1) / (levels * levels)) - 1.0) / 2.0;
  }

  int64_t BlockElements() const override { return quant_.block; }
  int64_t ChunkBytes(int64_t numel) const override { return quant_.BodyBytes(numel); }

 private:
  explicit BlockQuant(const kernels::QuantizeSpec& quant) {
    quant_ = quant;
    traits_.merges = {Merge::kReencode, Merge::kGather};
    traits_.unbiased = quant.stochastic;
    traits_.block = true;
    traits_.fixed_size = true;
    traits_.knob = {.key = "bits",
                    .value = static_cast<double>(quant.bits),
                    .low = 1,
                    .high = 8,
                    .whole = true};
  }
  // Elements of the longest block of such a message.
  double Longest(const TensorSpec& spec) const {
    return static_cast<double>(std::max<int64_t>(1, std::min(quant_.block, spec.numel())));
  }
};

TW_REGISTER(Compressor, blockquant, /*wire_id=*/7, BlockQuantConfig, BlockQuant::Create,
            "uniform 1-8 bit codes with a scale a block");

}  // namespace
}  // namespace tw
