#pragma once
// Text that needs no file: sentences of a small invented language, for tests and machines without a
// data set.

#include <cstdint>
#include <string>

namespace tw {

// `num_bytes` bytes, a pure function of `seed`. A vocabulary of 512 invented words; each word
// allows 8 successors with falling probability, so that a model finds structure at the level of
// letters, of words and of word pairs.
std::string SyntheticText(uint64_t seed, int64_t num_bytes);

}  // namespace tw
