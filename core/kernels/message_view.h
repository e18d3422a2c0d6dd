#pragma once
// The fp32 message an encoder works on, with an addition that has not happened yet.
//
// message[i] = buffer[i] + scale * addend[i]   (just buffer[i] when addend is null)
//
// Error feedback is a sum (e + g, g - h). Left pending, an encoder performs it in the pass that it
// makes anyway; afterwards buffer[i] must hold the residual message[i] - decode(own body)[i], for
// every i, and the addend is untouched.

#include <cstdint>
#include <span>

namespace tw {

struct MessageView {
  std::span<float> buffer;        // in: first term; out: the residual
  const float* addend = nullptr;  // same length, never aliases buffer; may be null
  float scale = 1.0f;

  int64_t numel() const { return static_cast<int64_t>(buffer.size()); }
};

}  // namespace tw
