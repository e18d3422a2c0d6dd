#pragma once
// What names a training batch. Equal keys give equal batches, in any process, at any time.

#include <cstdint>

#include "core/base/rng.h"

namespace tw {

struct BatchKey {
  uint64_t seed = 1;
  int64_t step = 0;
  int64_t micro_step = 0;  // 0 .. accumulate - 1
  int rank = 0;

  RngStream Stream() const {
    return RngStream::Of(seed, RngPurpose::kDataOrder, static_cast<uint64_t>(step),
                         static_cast<uint32_t>(micro_step), static_cast<uint32_t>(rank));
  }
};

}  // namespace tw
