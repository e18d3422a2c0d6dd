#include "core/data/synthetic_text.h"

#include <vector>

#include "core/base/rng.h"

namespace tw {
namespace {

constexpr int kWords = 512;
constexpr int kSuccessors = 8;

// Two to four syllables of a consonant and a vowel, some closed by an n, r or s.
std::vector<std::string> MakeWords(const RngStream& rng) {
  static constexpr char kConsonants[] = "bdfghklmnprstvwz";
  static constexpr char kVowels[] = "aeiou";
  static constexpr char kEnds[] = "nrs";
  std::vector<std::string> words(kWords);
  uint64_t counter = 0;
  for (std::string& word : words) {
    const uint64_t syllables = 1 + rng.Below(counter++, 3);
    for (uint64_t s = 0; s <= syllables; ++s) {
      const auto r = rng.At(counter++);
      word += kConsonants[r[0] % 16];
      word += kVowels[r[1] % 5];
      if (r[2] % 8 < 3) word += kEnds[r[2] % 8];
    }
  }
  return words;
}

}  // namespace

std::string SyntheticText(uint64_t seed, int64_t num_bytes) {
  const auto stream = [&](uint64_t part) {
    return RngStream::Of(seed, RngPurpose::kSynthetic, part, 0, kSharedRank);
  };
  const std::vector<std::string> words = MakeWords(stream(0));
  const RngStream successor = stream(1), choice = stream(2);
  std::string text;
  text.reserve(static_cast<size_t>(num_bytes) + 64);
  uint64_t word = 0, words_in_sentence = 0;
  for (uint64_t i = 0; static_cast<int64_t>(text.size()) < num_bytes; ++i) {
    std::string spelled = words[word];
    if (words_in_sentence == 0) spelled[0] = static_cast<char>(spelled[0] - 'a' + 'A');
    text += spelled;
    const auto r = choice.At(i);
    ++words_in_sentence;
    if (words_in_sentence >= 4 && r[0] % 8 == 0) {
      text += r[0] % 64 == 0 ? ".\n" : ". ";
      words_in_sentence = 0;
    } else {
      text += ' ';
    }
    // Successor j with probability 2^-(j+1), the last one twice.
    int j = 0;
    while (j + 1 < kSuccessors && (r[1] >> j & 1) == 1) ++j;
    word = successor.Below(word * kSuccessors + static_cast<uint64_t>(j), kWords);
  }
  text.resize(static_cast<size_t>(num_bytes));
  return text;
}

}  // namespace tw
