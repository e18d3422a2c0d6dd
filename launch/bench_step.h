#pragma once
// `tightwire bench step`: what the gradient reducer costs a step that has nothing to send.

#include <ostream>
#include <string>
#include <vector>

#include "core/base/status.h"

namespace tw {

// The same model stepped through the reducer (hooks, buckets, lane thread, finite check; one rank)
// and without it, in alternating blocks. Keys: blocks (9), block_steps (8), and those of a config;
// defaults: the GPT of INTERFACE on synthetic text. Prints the median ratio over pairs of blocks
// and its 90 % bootstrap interval.
Status RunBenchStep(const std::vector<std::string>& overrides, bool json, std::ostream& out);

}  // namespace tw
