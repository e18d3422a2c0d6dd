#pragma once
// Normally distributed numbers of a named stream: number i is a pure function of (stream, i).

#include <cmath>
#include <numbers>
#include <span>

#include "core/base/rng.h"

namespace tw {

// out[i] += scale * N(0, 1), two numbers from each draw of four words (Box and Muller).
inline void AddNormal(const RngStream& stream, double scale, std::span<double> out) {
  const auto unit = [](uint32_t high, uint32_t low) {  // (0, 1), 53 bits
    const uint64_t bits = ((uint64_t{high} << 32) | low) >> 11;
    return (static_cast<double>(bits) + 0.5) * 0x1.0p-53;
  };
  for (size_t i = 0; i < out.size(); i += 2) {
    const auto r = stream.At(i / 2);
    const double radius = scale * std::sqrt(-2 * std::log(unit(r[0], r[1])));
    const double angle = 2 * std::numbers::pi * unit(r[2], r[3]);
    out[i] += radius * std::cos(angle);
    if (i + 1 < out.size()) out[i + 1] += radius * std::sin(angle);
  }
}

}  // namespace tw
