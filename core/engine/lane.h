#pragma once
// Lane: the one thread that speaks to the communicator. Work starts in the order it was posted.
// Posted work runs alone; launched work (an Async) shares the thread with its neighbours: while one
// waits for bytes another encodes or decodes, up to `max_concurrent` at once. After the first error
// all later work is skipped and every wait returns that error. Post, Launch and Wait are for one
// other thread (the main thread).

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "core/api/async.h"
#include "core/base/device.h"
#include "core/base/patience.h"
#include "core/base/status.h"

namespace tw {

class Lane {
 public:
  using Work = std::function<Status()>;
  using AsyncWork = std::function<Async()>;

  explicit Lane(int max_concurrent = 2);
  // From here on all work is in a DeviceScope of it. Before anything that needs it is posted.
  void UseDevice(DeviceQueue* queue);
  ~Lane();  // finishes what was posted
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // Starts when everything posted and launched before has ended; nothing starts before it has.
  void Post(Work work);
  // The function object lives until its Async has ended.
  void Launch(AsyncWork work);
  // Until everything posted and launched so far has ended.
  Status Wait();
  Status Run(Work work) {
    Post(std::move(work));
    return Wait();
  }

 private:
  // Exactly one of the two.
  struct Entry {
    Work alone;
    AsyncWork shared;
  };
  struct Flight {
    AsyncWork work;
    std::optional<AsyncRun> run;
  };

  void Enqueue(Entry entry);
  void Loop();
  // Whether the front of the queue may start now.
  bool MayStart() const;
  // These run without the lock.
  Status Start(Entry entry);
  Status Advance(Flight& flight, bool* moved);
  // One look at everything under way; takes what has ended off the list.
  Status AdvanceAll(bool* moved);

  const size_t max_concurrent_;
  std::mutex mutex_;
  std::condition_variable posted_, drained_;
  std::deque<Entry> queue_;
  Status status_;
  bool busy_ = false;  // work is under way
  DeviceQueue* device_ = nullptr;
  bool stop_ = false;
  std::vector<std::unique_ptr<Flight>> flights_;  // the lane thread's own
  std::thread thread_;
};

}  // namespace tw
