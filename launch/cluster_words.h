#pragma once
// The words of `explain` that describe a cluster: ranks=1024 rate=10gbit ...

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/status.h"

namespace tw {

// The words of `explain` beside keys of the config: ranks=, hosts=, rate=, latency=, run=, times=.
struct ClusterWords {
  int ranks = 1;
  int hosts = 0;                       // 0: as many as ranks
  std::optional<double> bytes_per_ms;  // without: nothing is foretold
  double latency_ms = 0.05;
  std::string run;    // folder whose metrics tell the arithmetic; empty: measured here
  bool wall = false;  // of that run's wall times, waits for a core included

  // The host of each rank, ranks in a row together.
  std::vector<int64_t> HostOfRanks() const;
};
// Takes them out of *words. ConfigError for a value that is not allowed, or run= or latency=
// without rate=.
StatusOr<ClusterWords> TakeClusterWords(std::vector<std::string>* words, int default_ranks);

}  // namespace tw
