#pragma once
// Ranks as threads of one process: what tests and the lab run on, and, with n = 1, what a program
// without a launcher runs on (nothing waits then, and MPI is never initialised).
//
// Every communicator of a group is used by one thread at a time; different ones by different
// threads. The ranks share a hub: the last rank to start an operation moves everybody's bytes, so
// tickets may be waited for in any order. Sizes that two ranks disagree about are an error on all
// ranks. After a missed deadline the group is unusable: every later operation fails at once.
// Abort() ends the process.

#include <memory>
#include <vector>

#include "core/api/communicator.h"

namespace tw {

// REQUIRES: n >= 1, timeout_s > 0. Element r is rank r.
std::vector<std::unique_ptr<Communicator>> MakeThreadGroup(int n, double timeout_s);

}  // namespace tw
