#pragma once
// `tightwire bench encode`: what encoding and decoding cost, as multiples of a memory copy.

#include <ostream>
#include <string>
#include <vector>

#include "core/base/status.h"

namespace tw {

// One row a compressor: all registered ones at their defaults (those with a key `bits` at 8 and 4),
// or the one that `name=` says. Keys: name, rows, cols, repetitions, simd, peer, python, and those
// of the compressors. Times are medians over repetitions of copy, encode, copy, decode in turn on
// one thread; the message is error feedback's (buffer e, gradient pending), rows x cols fp32.
// A table, or one JSON object a line.
Status RunBenchEncode(const std::vector<std::string>& overrides, bool json, std::ostream& out);

}  // namespace tw
