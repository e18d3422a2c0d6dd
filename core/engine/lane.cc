#include "core/engine/lane.h"

#include <exception>

namespace tw {

Lane::Lane() : thread_([this] { Loop(); }) {}

Lane::~Lane() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  posted_.notify_one();
  thread_.join();
}

void Lane::Post(Work work) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back(std::move(work));
  }
  posted_.notify_one();
}

Status Lane::Wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  drained_.wait(lock, [this] { return queue_.empty() && !busy_; });
  return status_;
}

void Lane::Loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    posted_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Work work = std::move(queue_.front());
    queue_.pop_front();
    const bool skip = !status_.ok();
    busy_ = true;
    lock.unlock();
    Status status;
    if (!skip) {
      try {
        status = work();
      } catch (const std::exception&
                   e) {  // bad_alloc and the like must not end the process without a word
        status = BugError(std::string("on the lane thread: ") + e.what());
      }
    }
    lock.lock();
    if (status_.ok()) status_ = status;
    busy_ = false;
    if (queue_.empty()) drained_.notify_all();
  }
}

}  // namespace tw
