#pragma once
// The part of `tightwire explain` that foretells a step on a larger cluster (cluster_model.h): what
// arithmetic, encoding and decoding cost is measured here in seconds, or arithmetic is taken from
// the metrics of a run.

#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "launch/cluster_model.h"
#include "launch/cluster_words.h"
#include "launch/compose.h"

namespace tw {

struct ClusterRow {
  std::string setting;   // "topk", ...
  std::string exchange;  // "gather", ...
  // Of each count of ranks; none where a compressor does not serve so many.
  std::vector<std::optional<StepPrediction>> predictions;
  int loses_from = 0;  // slower than the fastest dense way from so many ranks on; 0: at none
};
struct ClusterForecast {
  Arithmetic arithmetic;
  std::string measured;  // where the arithmetic comes from
  std::vector<int> ranks;
  std::vector<ClusterRow> rows;  // dense as planned first, then by every other exchange of sums
};

// Dense through every exchange of sums, the config's compressor through every exchange that it can
// go through, or without one every registered compressor at its defaults.
StatusOr<ClusterForecast> ForetellCluster(const LoadedConfig& loaded, const Assembly& assembly,
                                          const ClusterWords& words);

nlohmann::ordered_json ToJson(const ClusterForecast& forecast, const ClusterWords& words);
void PrintForecast(const ClusterForecast& forecast, const ClusterWords& words, std::ostream& out);

}  // namespace tw
