#include "core/base/thread_time.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "core/base/clock.h"

namespace tw {
namespace {

// Works until this thread has had `ms` more of a core.
void Burn(double ms) {
  const double until = ThisThreadTime().cpu_ms + ms;
  while (ThisThreadTime().cpu_ms < until) {
  }
}

TEST(ThreadTimeTest, WorkIsCpuTime) {
  const double wall = NowMs();
  const double before = ThisThreadTime().cpu_ms;
  Burn(5);
  const double cpu = ThisThreadTime().cpu_ms - before;
  EXPECT_GE(cpu, 5);
  EXPECT_LE(cpu, NowMs() - wall);
}

TEST(ThreadTimeTest, WaitingForAnotherThreadIsNot) {
  std::mutex mutex;
  std::condition_variable done;
  bool worked = false;
  const double before = ThisThreadTime().cpu_ms;
  std::thread worker([&] {
    Burn(50);
    std::lock_guard lock(mutex);
    worked = true;
    done.notify_one();
  });
  {
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return worked; });
  }
  EXPECT_LT(ThisThreadTime().cpu_ms - before, 25);
  worker.join();
}

TEST(ThreadTimeTest, SharingACoreIsWaitingForIt) {
  if (std::isnan(ThisThreadTime().core_wait_ms)) GTEST_SKIP() << "no schedstat in this kernel";
  cpu_set_t allowed, one;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) {
      CPU_SET(cpu, &one);
      break;
    }
  }
  double waited[2] = {0, 0};
  double wall[2] = {0, 0};
  std::thread threads[2];
  for (int i : {0, 1}) {
    threads[i] = std::thread([&, i] {
      ASSERT_EQ(::sched_setaffinity(0, sizeof(one), &one), 0);
      const double start = NowMs();
      const double before = ThisThreadTime().core_wait_ms;
      Burn(60);
      waited[i] = ThisThreadTime().core_wait_ms - before;
      wall[i] = NowMs() - start;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(std::max(waited[0], waited[1]), 10);
  for (int i : {0, 1}) EXPECT_LE(waited[i], wall[i]);
}

}  // namespace
}  // namespace tw
