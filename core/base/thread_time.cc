#include "core/base/thread_time.h"

#include <time.h>

#include <cstdio>
#include <limits>

namespace tw {

ThreadTime ThisThreadTime() {
  ThreadTime out;
  // schedstat has this too, but as of the scheduler's last look, up to a tick (4 ms) ago.
  timespec cpu{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
  out.cpu_ms = 1e3 * static_cast<double>(cpu.tv_sec) + 1e-6 * static_cast<double>(cpu.tv_nsec);
  out.core_wait_ms = std::numeric_limits<double>::quiet_NaN();
  // Nanoseconds on a core, nanoseconds waiting for one, turns.
  if (std::FILE* file = std::fopen("/proc/thread-self/schedstat", "re")) {
    double wait_ns = 0;
    if (std::fscanf(file, "%*s %lf", &wait_ns) == 1) out.core_wait_ms = 1e-6 * wait_ns;
    std::fclose(file);
  }
  return out;
}

}  // namespace tw
