#pragma once
// A bf16 parameter and its gradient in an update that is done in fp32, in one pass
// (core/kernels/device_kernels.h).

#include <cstdint>

namespace tw::kernels {

struct NarrowParameter {
  uint16_t* value = nullptr;
  const uint16_t* grad = nullptr;
  // The fp32 copy that is stepped, then rounded to nearest into `value`. Null: value itself is
  // widened, stepped and rounded at random, element i by number i of the stream `key`.
  float* master = nullptr;
  uint64_t key = 0;
  int64_t numel = 0;
};

}  // namespace tw::kernels
