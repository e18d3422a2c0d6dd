// terngrad: -s, 0 or +s at random, with s the largest magnitude.
//
// Wen et al., arXiv 1705.07878.
//   Q(x)_i = s sign(x_i) b_i,  s = max |x|,  P(b_i = 1) = |x_i| / s
// Body: [fp32 s][five trits a byte], trit = sign + 1, byte = sum trit_i 3^i: 1.6 bits an element.
// omega <= (sqrt(d) - 1) / 2.
// Random numbers: element i draws number i of the rank's stream. State slots: none.
// Left out: the paper's clipping at 2.5 sigma (it biases; clip before if wanted) and integer sums
// with a shared scale.

#include <cmath>
#include <memory>

#include "compressors/quantized.h"

namespace tw {
namespace {

class TernGrad : public QuantizedCodec {
 public:
  static StatusOr<std::unique_ptr<Compressor>> Create(const NoConfig&) {
    return std::unique_ptr<Compressor>(new TernGrad());
  }

  double Delta(const TensorSpec& spec) const override { return std::max(0.0, 1.0 - Omega(spec)); }
  double Omega(const TensorSpec& spec) const override {
    const double d = static_cast<double>(std::max<int64_t>(1, spec.numel()));
    return (std::sqrt(d) - 1) / 2;
  }

 private:
  TernGrad() {
    quant_.bits = 2;
    quant_.levels = 1;
    quant_.packing = kernels::Packing::kTrits;
    quant_.stochastic = true;
    traits_.merges = {Merge::kGather};
    traits_.unbiased = true;
    traits_.fixed_size = true;
  }
};

TW_REGISTER(Compressor, terngrad, /*wire_id=*/10, NoConfig, TernGrad::Create,
            "sign times the largest magnitude or zero at random, unbiased");

}  // namespace
}  // namespace tw
