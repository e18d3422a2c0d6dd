#include "core/api/async.h"

#include <new>
#include <vector>

namespace tw {
namespace {

constexpr size_t kGrain = 128;
constexpr size_t kClasses = 32;  // frames up to 4 KiB are kept

// Free frames of one thread by size class. A frame freed on another thread joins that thread's.
struct FreeFrames {
  std::vector<void*> lists[kClasses];
  ~FreeFrames() {
    for (auto& list : lists) {
      for (void* frame : list) ::operator delete(frame);
    }
  }
};

FreeFrames& Mine() {
  thread_local FreeFrames frames;
  return frames;
}

size_t ClassOf(size_t bytes) { return (bytes + kGrain - 1) / kGrain; }

}  // namespace

namespace internal {

void* NewFrame(size_t bytes) {
  const size_t c = ClassOf(bytes);
  if (c >= kClasses) return ::operator new(bytes);
  auto& list = Mine().lists[c];
  if (list.empty()) return ::operator new(c* kGrain);
  void* frame = list.back();
  list.pop_back();
  return frame;
}

void DeleteFrame(void* frame, size_t bytes) noexcept {
  const size_t c = ClassOf(bytes);
  if (c < kClasses) {
    try {
      Mine().lists[c].push_back(frame);
      return;
    } catch (const std::bad_alloc&) {  // then it goes back to the heap
    }
  }
  ::operator delete(frame);
}

}  // namespace internal

Status RunBlocking(Async async) {
  AsyncRun run(std::move(async));
  run.Resume();
  while (!run.done()) run.Arrived(run.waiting()->Wait());
  return run.TakeResult();
}

}  // namespace tw
