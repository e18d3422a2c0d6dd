// bf16: every element rounded to the nearest bfloat16 value, ties to even.
//
//   body_i = cast(x_i / n)          n ranks: the sum over ranks stays in range
//   decode(body)_i = n * body_i     relative error^2 <= 2^-16 where x_i / n is a normal bfloat16
//   number
//
// Body: numel little-endian 16-bit values. Beyond the largest finite value (3.39e38) the cast
// saturates; tiny values become subnormal or zero. What it drops is in the residual. No state.

#include "compressors/cast.h"

namespace tw {
namespace {

struct Bf16 {
  static constexpr const char* kName = "bf16";
  static constexpr DType kDType = DType::kBF16;
  static constexpr double kDelta = 1.0 - 0x1p-16;
  static void CastResidual(std::span<float> buffer, const float* addend, float s, float pre,
                           float post, std::span<uint16_t> to) {
    kernels::CastResidualBf16(buffer, addend, s, pre, post, to);
  }
  static void Add(std::span<float> out, float factor, std::span<const uint16_t> from) {
    kernels::AddFromBf16(out, factor, from);
  }
};

TW_REGISTER(Compressor, bf16, /*wire_id=*/3, NoConfig, Cast<Bf16>::Create,
            "half the bytes: elements rounded to bfloat16");

}  // namespace
}  // namespace tw
