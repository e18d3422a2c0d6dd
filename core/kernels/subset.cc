#include "core/kernels/subset.h"
#include "core/kernels/device_kernels.h"

#include <algorithm>
#include <bit>

#include "core/base/bytes.h"
#include "core/base/status.h"
#include "core/kernels/elementwise.h"

namespace tw::kernels {
namespace {

// SplitMix64's output function (Steele, Lea, Flood, OOPSLA 2014) at position `counter`.
uint64_t Mix(uint64_t key, uint64_t counter) {
  uint64_t z = key + (counter + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// Calls visit(i) for the marked i of words [begin, end), ascending.
template <class Visit>
void ForMarked(std::span<const uint64_t> bitmap, size_t begin, size_t end, Visit visit) {
  for (size_t word = begin; word < end; ++word) {
    for (uint64_t bits = bitmap[word]; bits; bits &= bits - 1) {
      visit(word * 64 + static_cast<size_t>(std::countr_zero(bits)));
    }
  }
}

}  // namespace

void MarkSubset(uint64_t key, size_t numel, size_t k, std::span<uint64_t> bitmap) {
  if (DeviceKernels* device = OnDevice()) return device->MarkSubset(key, numel, k, bitmap);
  TW_CHECK_LE(k, numel);
  TW_CHECK_EQ(bitmap.size(), BitmapWords(numel));
  const bool complement = k > numel / 2;
  const size_t drawn = complement ? numel - k : k;
  std::fill(bitmap.begin(), bitmap.end(), uint64_t{0});
  for (size_t j = numel - drawn; j < numel; ++j) {
    // Uniform in [0, j]: the high half of a 64 x 64 bit product, bias below 2^-32.
    const uint64_t t =
        static_cast<uint64_t>((static_cast<unsigned __int128>(Mix(key, j)) * (j + 1)) >> 64);
    const uint64_t bit = uint64_t{1} << (t % 64);
    if (bitmap[t / 64] & bit) {
      bitmap[j / 64] |= uint64_t{1} << (j % 64);
    } else {
      bitmap[t / 64] |= bit;
    }
  }
  if (!complement) return;
  for (uint64_t& word : bitmap) word = ~word;
  if (numel % 64) bitmap.back() &= (uint64_t{1} << (numel % 64)) - 1;
}

void TakeMarked(const MessageView& message, std::span<const uint64_t> bitmap, float decoded_factor,
                uint8_t* to) {
  if (DeviceKernels* device = OnDevice()) {
    return device->TakeMarked(message, bitmap, decoded_factor, to);
  }
  const std::span<float> x = message.buffer;
  TW_CHECK_EQ(bitmap.size(), BitmapWords(x.size()));
  constexpr size_t kBlockWords = 64;  // 16 KiB of floats: still in the nearest cache when visited
  for (size_t word = 0; word < bitmap.size(); word += kBlockWords) {
    const size_t end_word = std::min(word + kBlockWords, bitmap.size());
    const size_t begin = word * 64;
    const size_t end = std::min(end_word * 64, x.size());
    if (message.addend) {
      AddInPlace(x.subspan(begin, end - begin), message.scale,
                 {message.addend + begin, end - begin});
    }
    ForMarked(bitmap, word, end_word, [&](size_t i) {
      StoreLE(to, x[i]);
      to += sizeof(float);
      x[i] -= decoded_factor * x[i];
    });
  }
}

void AddMarked(std::span<float> out, std::span<const uint64_t> bitmap, float s,
               const uint8_t* from) {
  if (DeviceKernels* device = OnDevice()) return device->AddMarked(out, bitmap, s, from);
  TW_CHECK_EQ(bitmap.size(), BitmapWords(out.size()));
  ForMarked(bitmap, 0, bitmap.size(), [&](size_t i) {
    out[i] += s * LoadLE<float>(from);
    from += sizeof(float);
  });
}

}  // namespace tw::kernels
