// int4: moments in 4 bits with a scale a block of 128 (Li, Chen, Zhu, arXiv 2309.01507).
//   m   16 numbers of dynamic exponent, signed;   v   1/16 .. 16/16, without zero: what divides by
//   its root stays tame.   Rounded to nearest, ties to the lower code.
// Slots of each: .codes uint8 [(numel+1)/2], element 2k in the low nibble of byte k; .scales fp32
// [numel/128]. 0.53125 bytes an element. core/kernels/state_codes.h has the layout to the bit.

#include "optim/state/block_codes.h"

namespace tw {
namespace {

class Int4 : public SignedInt4 {
 public:
  const char* name() const override { return "int4"; }
};

StatusOr<std::unique_ptr<StateCodec>> Create(const NoConfig&) { return std::make_unique<Int4>(); }

TW_REGISTER(StateCodec, int4, 0, NoConfig, Create, "4 bits, a scale for each 128 elements");

}  // namespace
}  // namespace tw
