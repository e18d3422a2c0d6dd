// qsgd: random rounding to s levels of the Euclidean norm.
//
// Alistarh, Grubic, Li, Tomioka, Vojnovic, arXiv 1610.02132.
//   Q(x)_i = ||x|| sign(x_i) l_i / s,  l_i = s |x_i| / ||x|| rounded at random so that the mean is
//   x
// Body: [fp32 norm][codes, 1 + ceil(log2(s + 1)) bits each, little-endian], once for the whole
// message or once a bucket; the code is the signed level + 2^(bits-1).
// omega <= min(d / (4 s^2), sqrt(d) / s) with d the elements that share a norm: bucket large
// parameters. The norm is rounded up, so that no level exceeds s.
// Random numbers: element i draws number i of the rank's stream. State slots: none.
// Left out: Elias coding (it pays at s = 1 only).

#include <bit>
#include <cmath>
#include <memory>

#include "compressors/quantized.h"

namespace tw {
namespace {

struct QsgdConfig {
  int64_t levels = 15;
  int64_t bucket = 0;
  static FieldList<QsgdConfig> Fields() {
    return FieldList<QsgdConfig>()
        .Int("levels", &QsgdConfig::levels, {1, 127}, "levels on either side of zero")
        .Int("bucket", &QsgdConfig::bucket, {0, int64_t{1} << 31},
             "elements that share a norm, a multiple of 8; 0: the whole parameter");
  }
};

class Qsgd : public QuantizedCodec {
 public:
  static StatusOr<std::unique_ptr<Compressor>> Create(const QsgdConfig& config) {
    if (config.bucket % 8 != 0) {
      return ConfigError("compressor.bucket = " + std::to_string(config.bucket) +
                         " is not a multiple of 8");
    }
    return std::unique_ptr<Compressor>(new Qsgd(config));
  }

  double Delta(const TensorSpec& spec) const override { return std::max(0.0, 1.0 - Omega(spec)); }
  double Omega(const TensorSpec& spec) const override {
    const int64_t n = std::max<int64_t>(1, spec.numel());
    const double d = static_cast<double>(quant_.block == 0 ? n : std::min(quant_.block, n));
    const double s = quant_.levels;
    return std::min(d / (4 * s * s), std::sqrt(d) / s);
  }

 private:
  explicit Qsgd(const QsgdConfig& config) {
    quant_.bits = 1 + static_cast<int>(std::bit_width(static_cast<uint64_t>(config.levels)));
    quant_.levels = static_cast<int>(config.levels);
    quant_.block = config.bucket;
    quant_.scale = kernels::ScaleRule::kL2Norm;
    quant_.stochastic = true;
    traits_.merges = {Merge::kGather};
    traits_.unbiased = true;
    traits_.fixed_size = true;
    traits_.knob = {.key = "levels",
                    .value = static_cast<double>(config.levels),
                    .low = 1,
                    .high = 127,
                    .whole = true,
                    .steps = {1, 3, 7, 15, 31, 63, 127}};  // one bit more each
  }
};

TW_REGISTER(Compressor, qsgd, /*wire_id=*/8, QsgdConfig, Qsgd::Create,
            "random rounding to levels of the L2 norm, unbiased");

}  // namespace
}  // namespace tw
