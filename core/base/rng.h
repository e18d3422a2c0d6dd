#pragma once
// Counter-based randomness: every number is a pure function of (seed, purpose, step, parameter,
// rank or shared, index). Philox4x32-10 (Salmon et al., SC'11) turns the names into a 64-bit stream
// key once; consumers either run Philox on (key, counter) or the cheaper per-element mixer of
// core/kernels/random.h. Thread safe: there is no state.

#include <array>
#include <cstdint>

#include "core/base/host_device.h"

namespace tw {

// What a stream is for: two users of one (seed, step, parameter) never share numbers. Values are
// never reused.
enum class RngPurpose : uint32_t {
  kModelInit = 1,
  kDataOrder = 2,
  kDataSplit = 3,
  kEncode = 4,        // stochastic rounding, own draw per rank
  kEncodeShared = 5,  // index sets that all ranks agree on
  kReencode = 6,      // second hop: keyed by parameter and offset, never by owner
  kFactorInit = 7,    // PowerSGD's Q
  kSynthetic = 8,
  kAugment = 9,
  kStrategy = 10,       // coins and samples of clients that all ranks agree on
  kNoise = 11,          // of a problem's gradients: keyed by client, so the same for every method
  kProblem = 12,        // what a problem is made of
  kStateRounding = 13,  // of optimizer states: own draw per element, the same on every rank
  kTest = 100,
};

inline constexpr uint32_t kSharedRank = 0xFFFFFFFFu;

TW_HOST_DEVICE inline std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> c,
                                                         std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return c;
}

// A named stream. Streams with different names are independent.
struct RngStream {
  uint64_t key = 0;

  static RngStream Of(uint64_t seed, RngPurpose purpose, uint64_t step, uint32_t parameter,
                      uint32_t rank) {
    const auto a = Philox4x32(
        {static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32), parameter, rank},
        {static_cast<uint32_t>(seed),
         static_cast<uint32_t>(seed >> 32) ^ (static_cast<uint32_t>(purpose) * 0x9E3779B9u)});
    return {(uint64_t{a[0]} << 32) | a[1]};
  }
  // Four 32-bit numbers at position `counter`.
  TW_HOST_DEVICE std::array<uint32_t, 4> At(uint64_t counter) const {
    return Philox4x32({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0},
                      {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)});
  }
  uint64_t U64(uint64_t counter) const {
    const auto r = At(counter);
    return (uint64_t{r[0]} << 32) | r[1];
  }
  // Uniform in [0, n), bias below 2^-32 for n < 2^32.
  uint64_t Below(uint64_t counter, uint64_t n) const {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(U64(counter)) * n) >> 64);
  }
  // Uniform in [0, 1) with 24 bits.
  float Uniform(uint64_t counter) const {
    return static_cast<float>(At(counter)[0] >> 8) * 0x1.0p-24f;
  }
};

}  // namespace tw
