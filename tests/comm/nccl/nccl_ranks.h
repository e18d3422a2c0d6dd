#pragma once
// Ranks as threads, each with a device and an NCCL communicator; thread groups carry control data.

#include <gtest/gtest.h>

#include <functional>
#include <memory>

#include "comm/nccl/nccl_communicator.h"
#include "tests/comm/thread_group.h"

namespace tw {

// No test that is meant to pass ever waits for it.
inline constexpr double kGenerousSeconds = 60;

inline void RunNcclRanks(int n, const NcclOptions& options,
                         const std::function<void(Communicator&)>& body) {
  RunRanks(n, options.timeout_s, [&](Communicator& control) {
    NcclOptions mine = options;
    mine.device = control.rank();
    auto comm = MakeNcclCommunicator(mine, control);
    ASSERT_TRUE(comm.ok()) << comm.status();
    body(**comm);
  });
}

inline void RunNcclRanks(int n, const std::function<void(Communicator&)>& body) {
  RunNcclRanks(n, {.timeout_s = kGenerousSeconds}, body);
}

}  // namespace tw
