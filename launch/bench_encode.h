#pragma once
// `tightwire bench encode`: what encoding and decoding cost, as multiples of a memory copy.

#include <ostream>
#include <string>
#include <vector>

#include "core/base/status.h"

namespace tw {

struct DeviceModule;

// One row a compressor: all registered ones at their defaults (those with a key `bits` at 8 and 4),
// or the one that `name=` says. Keys: name, rows, cols, repetitions, feedback, device, simd, peer,
// python, and those of the compressors. Times are medians over repetitions of copy, encode, copy,
// decode, peer in turn on one thread; the message is error feedback's (buffer e, gradient pending),
// rows x cols fp32; with feedback=none the gradient itself, nothing pending. `bound`: the part
// reached of what memory allows at the copy's bytes a second, with each number that the message
// consists of read once, the residual written once, and the body. On a device (`device=cuda`) every
// repetition starts when it is idle and ends when it is idle again, so that a launch and a wait are
// in each time, the copy's and the peer's too; compressors that work on hosts only are left out.
// A table, or one JSON object a line. `devices` in the place of this machine's, for tests.
Status RunBenchEncode(const std::vector<std::string>& overrides, bool json, std::ostream& out,
                      const DeviceModule* devices = nullptr);

}  // namespace tw
