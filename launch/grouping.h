#pragma once
// Which ranks act as one in the exchange (comm.hierarchical, comm.group_size).

#include <string>
#include <vector>

#include "launch/compose.h"

namespace tw {

struct Grouping {
  std::vector<int> group_of;  // by rank; empty: flat
  std::vector<std::string> notes;

  // As many as send messages to each other.
  int exchanging(int ranks) const;
};

// hosts[r] is the same number for the ranks of one host. The same on all ranks; fault kConfig where
// something else in the config does not go with groups that it asks for.
StatusOr<Grouping> ChooseGrouping(const Settings& settings, const std::vector<int64_t>& hosts);

}  // namespace tw
