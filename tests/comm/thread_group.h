#pragma once
// Runs one function per rank of a thread group and waits for all of them.

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "comm/thread_communicator.h"

namespace tw {

inline void RunRanks(int n, double timeout_s, const std::function<void(Communicator&)>& body) {
  auto group = MakeThreadGroup(n, timeout_s);
  std::vector<std::thread> threads;
  for (auto& communicator : group) threads.emplace_back([&] { body(*communicator); });
  for (auto& thread : threads) thread.join();
}

// Generous: no test that is meant to pass ever waits for it.
inline void RunRanks(int n, const std::function<void(Communicator&)>& body) {
  RunRanks(n, 60.0, body);
}

}  // namespace tw
