#pragma once
// The one wording of a missed deadline, for all communicators.

#include <vector>

#include "core/api/communicator.h"

namespace tw {

// "rank 0: reduce-scatter of bucket 3 in step 120 timed out after 300 s; missing: rank 2".
// `missing` may be empty: then every rank was heard of and the network is named instead.
Status TimedOut(int rank, const OpTag& tag, double timeout_s, const std::vector<int>& missing);

}  // namespace tw
