#pragma once
// Ticket::Wait for tickets that only know how to be tested.

#include <chrono>
#include <thread>

#include "core/api/async.h"
#include "core/base/patience.h"

namespace tw {

// Tests until done, with the thread asleep for longer and longer while nothing moves.
inline Status WaitByTests(Ticket& ticket) {
  Patience patience;
  for (;;) {
    TW_ASSIGN_OR_RETURN(const Progress progress, ticket.Test());
    if (progress == Progress::kDone) return OkStatus();
    const double sleep_ms = patience.NextSleepMs(progress == Progress::kMoved);
    if (sleep_ms == 0) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(sleep_ms));
    }
  }
}

}  // namespace tw
