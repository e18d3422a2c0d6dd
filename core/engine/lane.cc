#include "core/engine/lane.h"

#include <chrono>
#include <exception>
#include <new>

#include "core/engine/catch_torch.h"

namespace tw {
namespace {

// bad_alloc and the like must not end the process without a word.
template <class F>
Status Guarded(const F& f) {
  try {
    return f();
  } catch (const std::bad_alloc& e) {
    return TorchError(e);
  } catch (const std::exception& e) {
    return BugError(std::string("on the lane thread: ") + e.what());
  } catch (...) {
    return BugError("on the lane thread: an exception of unknown type");
  }
}

}  // namespace

Lane::Lane(int max_concurrent)
    : max_concurrent_(static_cast<size_t>(max_concurrent)), thread_([this] { Loop(); }) {
  TW_CHECK_GE(max_concurrent, 1);
}

Lane::~Lane() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  posted_.notify_one();
  thread_.join();
}

void Lane::UseDevice(DeviceQueue* queue) {
  std::lock_guard<std::mutex> lock(mutex_);
  device_ = queue;
}

void Lane::Post(Work work) { Enqueue({std::move(work), {}}); }
void Lane::Launch(AsyncWork work) { Enqueue({{}, std::move(work)}); }

void Lane::Enqueue(Entry entry) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back(std::move(entry));
  }
  posted_.notify_one();
}

Status Lane::Wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  drained_.wait(lock, [this] { return queue_.empty() && !busy_; });
  return status_;
}

bool Lane::MayStart() const {
  if (queue_.empty()) return false;
  return queue_.front().alone ? flights_.empty() : flights_.size() < max_concurrent_;
}

Status Lane::Start(Entry entry) {
  if (entry.alone) return Guarded(entry.alone);
  auto flight = std::make_unique<Flight>();
  flight->work = std::move(entry.shared);
  return Guarded([&]() -> Status {
    flight->run.emplace(flight->work());
    flight->run->Resume();
    if (flight->run->done()) return flight->run->TakeResult();
    flights_.push_back(std::move(flight));
    return OkStatus();
  });
}

Status Lane::Advance(Flight& flight, bool* moved) {
  return Guarded([&]() -> Status {
    StatusOr<Progress> progress = flight.run->waiting()->Test();
    if (progress.ok() && *progress != Progress::kDone) {
      *moved = *moved || *progress == Progress::kMoved;
      return OkStatus();
    }
    *moved = true;
    flight.run->Arrived(progress.status());
    return flight.run->done() ? flight.run->TakeResult() : OkStatus();
  });
}

Status Lane::AdvanceAll(bool* moved) {
  for (size_t i = 0; i < flights_.size();) {
    const Status status = Advance(*flights_[i], moved);
    if (!status.ok()) return status;
    if (flights_[i]->run->done()) {
      flights_.erase(flights_.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      ++i;
    }
  }
  return OkStatus();
}

void Lane::Loop() {
  Patience patience;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    if (flights_.empty()) {
      busy_ = false;
      if (queue_.empty()) drained_.notify_all();
      posted_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
    }
    busy_ = true;
    Status status;
    if (!status_.ok()) {
      queue_.clear();
      flights_.clear();
    } else if (MayStart()) {
      Entry entry = std::move(queue_.front());
      queue_.pop_front();
      DeviceQueue* const device = device_;
      lock.unlock();
      const DeviceScope scope(device);
      status = Start(std::move(entry));
      patience = {};
      lock.lock();
    } else {
      DeviceQueue* const device = device_;
      lock.unlock();
      const DeviceScope scope(device);
      bool moved = false;
      status = AdvanceAll(&moved);
      const double sleep_ms = patience.NextSleepMs(moved);
      if (sleep_ms == 0) std::this_thread::yield();
      lock.lock();
      if (sleep_ms > 0) {
        posted_.wait_for(lock, std::chrono::duration<double, std::milli>(sleep_ms),
                         [this] { return MayStart(); });
      }
    }
    if (status_.ok()) status_ = status;
  }
}

}  // namespace tw
