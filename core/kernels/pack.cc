// Codes to bits and back. Eight codes of b bits are b bytes: a 64-bit word of eight bytes is
// squeezed in three steps (pairs, quads, all), which beats a shift register fed code by code.
#include <algorithm>
#include <array>
#include <cstring>

#include "core/base/bytes.h"
#include "core/kernels/quantize.h"

namespace tw::kernels {
namespace {

// In every lane of 2 * width bits: the low `bits` of the upper half move down onto those of the
// lower half. `every` has a 1 at the start of each lane.
constexpr uint64_t Join(uint64_t x, int width, int bits, uint64_t every) {
  const uint64_t low = ((uint64_t{1} << bits) - 1) * every;
  return (x & low) | ((x >> (width - bits)) & (low << bits));
}
constexpr uint64_t Part(uint64_t x, int width, int bits, uint64_t every) {
  const uint64_t low = ((uint64_t{1} << bits) - 1) * every;
  return (x & low) | ((x & (low << bits)) << (width - bits));
}

constexpr uint64_t Squeeze(uint64_t x, int bits) {
  x = Join(x, 8, bits, 0x0001000100010001ull);
  x = Join(x, 16, 2 * bits, 0x0000000100000001ull);
  return Join(x, 32, 4 * bits, 1);
}
constexpr uint64_t Spread(uint64_t x, int bits) {
  x = Part(x, 32, 4 * bits, 1);
  x = Part(x, 16, 2 * bits, 0x0000000100000001ull);
  return Part(x, 8, bits, 0x0001000100010001ull);
}

// The five trits of a byte in the first bytes of a word.
struct TritTable {
  std::array<uint64_t, 256> words;
  constexpr TritTable() : words{} {
    for (int byte = 0; byte < 256; ++byte) {
      int rest = byte;
      for (int i = 0; i < 5; ++i, rest /= 3) words[byte] |= uint64_t(rest % 3) << (8 * i);
    }
  }
};
constexpr TritTable kTrits;

}  // namespace

void PackBits(const uint8_t* codes, int64_t numel, int bits, uint8_t* packed) {
  if (numel == 0) return;
  if (bits == 8) {
    std::memcpy(packed, codes, static_cast<size_t>(numel));
    return;
  }
  const int64_t full = numel / 8;
  const int64_t total = (numel * bits + 7) / 8;
  for (int64_t g = 0; g < full; ++g) {
    const uint64_t word = Squeeze(LoadLE<uint64_t>(codes + g * 8), bits);
    // A whole word is stored where the body has room: the next group overwrites what is too much.
    if (g * bits + 8 <= total) {
      StoreLE(packed + g * bits, word);
    } else {
      std::memcpy(packed + g * bits, &word, static_cast<size_t>(bits));
    }
  }
  if (full * 8 == numel) return;
  uint64_t word = 0;
  std::memcpy(&word, codes + full * 8, static_cast<size_t>(numel - full * 8));
  word = Squeeze(word, bits);
  std::memcpy(packed + full * bits, &word, static_cast<size_t>(total - full * bits));
}

void UnpackBits(const uint8_t* packed, int64_t numel, int bits, uint8_t* codes) {
  if (numel == 0) return;
  if (bits == 8) {
    std::memcpy(codes, packed, static_cast<size_t>(numel));
    return;
  }
  const int64_t full = numel / 8;
  const int64_t total = (numel * bits + 7) / 8;
  for (int64_t g = 0; g < full; ++g) {
    uint64_t word = 0;
    if (g * bits + 8 <= total) {
      word = LoadLE<uint64_t>(packed + g * bits);
    } else {
      std::memcpy(&word, packed + g * bits, static_cast<size_t>(bits));
    }
    StoreLE(codes + g * 8, Spread(word, bits));
  }
  if (full * 8 == numel) return;
  uint64_t word = 0;
  std::memcpy(&word, packed + full * bits, static_cast<size_t>(total - full * bits));
  word = Spread(word, bits);
  std::memcpy(codes + full * 8, &word, static_cast<size_t>(numel - full * 8));
}

void PackTrits(const uint8_t* trits, int64_t numel, uint8_t* packed) {
  int64_t i = 0;
  for (; i + 5 <= numel; i += 5) {
    const uint8_t* t = trits + i;
    packed[i / 5] = static_cast<uint8_t>(t[0] + 3 * t[1] + 9 * t[2] + 27 * t[3] + 81 * t[4]);
  }
  if (i == numel) return;
  int byte = 0;
  for (int64_t j = numel; j-- > i;) byte = byte * 3 + trits[j];
  packed[i / 5] = static_cast<uint8_t>(byte);
}

void UnpackTrits(const uint8_t* packed, int64_t numel, uint8_t* trits) {
  int64_t i = 0;
  // A whole word is stored where there is room: the next one overwrites what is too much.
  for (; i + 8 <= numel; i += 5) StoreLE(trits + i, kTrits.words[*packed++]);
  for (; i < numel; i += 5) {
    const uint64_t word = kTrits.words[*packed++];
    std::memcpy(trits + i, &word, static_cast<size_t>(std::min<int64_t>(5, numel - i)));
  }
}

}  // namespace tw::kernels
