#pragma once
// Lane: the one thread that speaks to the communicator. Work runs in the order it was posted; after
// the first error all later work is skipped and every wait returns that error. Post and Wait are
// for one other thread (the main thread).

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "core/base/status.h"

namespace tw {

class Lane {
 public:
  using Work = std::function<Status()>;

  Lane();
  ~Lane();  // finishes what was posted
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  void Post(Work work);
  // Until everything posted so far has run.
  Status Wait();
  Status Run(Work work) {
    Post(std::move(work));
    return Wait();
  }

 private:
  void Loop();

  std::mutex mutex_;
  std::condition_variable posted_, drained_;
  std::deque<Work> queue_;
  Status status_;
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tw
