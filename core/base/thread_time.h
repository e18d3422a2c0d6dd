#pragma once
// What the calling thread got from the machine's cores: time on one, and time ready to run while
// others had them all. Of a step's wall time the second is the neighbours' doing; what is neither
// is waiting for something: the network, another rank.

namespace tw {

struct ThreadTime {
  double cpu_ms = 0;
  double core_wait_ms = 0;  // NaN where the kernel does not tell (/proc/thread-self/schedstat)
};

// Of this thread since it started. About 10 microseconds; any thread.
ThreadTime ThisThreadTime();

}  // namespace tw
