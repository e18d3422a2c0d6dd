// fp16: every element rounded to the nearest half value, ties to even.
//
//   body_i = cast(x_i / n)          n ranks: the sum over ranks stays in range
//   decode(body)_i = n * body_i     relative error^2 <= 2^-22 where x_i / n is a normal half number
//
// Body: numel little-endian 16-bit values. Beyond the largest finite value (65504) the cast
// saturates; tiny values become subnormal or zero. What it drops is in the residual. No state.

#include "compressors/cast.h"

namespace tw {
namespace {

struct Half {
  static constexpr const char* kName = "fp16";
  static constexpr DType kDType = DType::kF16;
  static constexpr double kDelta = 1.0 - 0x1p-22;
  static void CastResidual(std::span<float> buffer, const float* addend, float s, float pre,
                           float post, std::span<uint16_t> to) {
    kernels::CastResidualHalf(buffer, addend, s, pre, post, to);
  }
  static void Add(std::span<float> out, float factor, std::span<const uint16_t> from) {
    kernels::AddFromHalf(out, factor, from);
  }
};

TW_REGISTER(Compressor, fp16, /*wire_id=*/2, NoConfig, Cast<Half>::Create,
            "half the bytes: elements rounded to half");

}  // namespace
}  // namespace tw
