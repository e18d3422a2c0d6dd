#include "comm/timeout_error.h"

#include <cstdio>

namespace tw {

Status TimedOut(int rank, const OpTag& tag, double timeout_s, const std::vector<int>& missing) {
  char seconds[32];
  std::snprintf(seconds, sizeof(seconds), "%g", timeout_s);
  std::string message = "rank " + std::to_string(rank) + ": " + ToString(tag) +
                        " timed out after " + seconds + " s; ";
  if (missing.empty()) return PeerTimeout(message + "all ranks are waiting for the network");
  message += missing.size() == 1 ? "missing: rank " : "missing: ranks ";
  for (size_t i = 0; i < missing.size(); ++i) {
    message += (i ? ", " : "") + std::to_string(missing[i]);
  }
  return PeerTimeout(message);
}

}  // namespace tw
