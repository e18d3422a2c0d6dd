#pragma once
// `tightwire bench exchange`: how long the bytes of one bucket take between ranks, against what the
// link allows. Run it under mpirun or launch/cluster; every rank takes part, rank 0 prints.

#include <ostream>
#include <string>
#include <vector>

#include "core/base/status.h"

namespace tw {

// One row for each name and size. name: an exchange (dense fp32 through it) or a compressor (its
// body of a random message, through the exchange it prefers); empty: every exchange of sums.
// Keys: name, numel (elements; 0: 2.5 and 10 million), repetitions, rate (of the links, as
// 100mbit: prints link_fraction), timeout_s, and those of the compressors. Milliseconds are the
// median over repetitions of the slowest rank's; cpu_ms is the mean over ranks.
// link_fraction = (bytes this rank sends / rate) / time: 2 (n-1)/n x bytes / rate for dense sums.
Status RunBenchExchange(const std::vector<std::string>& overrides, bool json, std::ostream& out);

}  // namespace tw
