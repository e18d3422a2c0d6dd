#pragma once
// A queue of a device that is none: its memory is the host's, and what goes to pinned memory goes
// there late, a piece each time that somebody asks about a mark. Whoever reads pinned memory before
// its mark reads noise; whoever writes it before what it holds was copied in ends the program.

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "core/base/device.h"

namespace tw {

class SlowQueue : public DeviceQueue {
 public:
  DeviceMemory& memory() override { return memory_; }
  // These are done at once, and all before them.
  void Copy(void* to, const void* from, size_t bytes) override { CopyIn(to, from, bytes); }
  void Zero(void* to, size_t bytes) override {
    Finish();
    std::memset(to, 0, bytes);
  }
  void CopyIn(void* to, const void* host, size_t bytes) override {
    Finish();
    std::memmove(to, host, bytes);
  }
  void CopyOut(void* host, const void* from, size_t bytes) override {
    Finish();
    std::memcpy(host, from, bytes);
  }
  void StartCopyOut(void* pinned, const void* from, size_t bytes) override {
    std::memset(pinned, 0x5A, bytes);  // what was there is no longer
    Put([=] { std::memcpy(pinned, from, bytes); });
  }
  void StartCopyIn(void* to, const void* pinned, size_t bytes) override {
    std::memcpy(to, pinned, bytes);  // for the eyes of tests
    const auto* begin = static_cast<const uint8_t*>(pinned);
    Put([begin, kept = std::vector<uint8_t>(begin, begin + bytes)] {
      TW_CHECK(std::equal(kept.begin(), kept.end(), begin));  // else it was used too early
    });
  }
  uint8_t* AllocatePinned(size_t bytes) override {
    ++num_pinned;
    pinned_.push_back(std::make_unique<std::vector<uint8_t>>(bytes, uint8_t{0x5A}));
    return pinned_.back()->data();
  }
  void FreePinned(uint8_t* memory) override {
    ++num_freed;
    TW_CHECK(std::any_of(pinned_.begin(), pinned_.end(),
                         [&](const auto& bytes) { return bytes->data() == memory; }));
  }
  std::unique_ptr<DeviceMark> Mark() override { return std::make_unique<SlowMark>(this, told_); }
  void After(const DeviceMark&) override {}
  Status Wait() override {
    Finish();
    return OkStatus();
  }
  Status WaitFor(const DeviceMark& mark) override {
    while (!const_cast<DeviceMark&>(mark).reached()) {
    }
    return OkStatus();
  }
  void BeginTogether() override {}
  void Next() override {}
  void EndTogether() override {}

  // Does the next piece of work.
  void Step() {
    if (work_.empty()) return;
    work_.front()();
    work_.pop_front();
    ++done_;
  }
  void Finish() {
    while (!work_.empty()) Step();
  }

  int num_pinned = 0, num_freed = 0;

 private:
  class Memory : public DeviceMemory {
    uint8_t* Allocate(size_t bytes) override {
      all_.push_back(std::make_unique<std::vector<uint8_t>>(bytes));
      return all_.back()->data();
    }
    void Free(uint8_t*) override {}
    std::vector<std::unique_ptr<std::vector<uint8_t>>> all_;
  };
  class SlowMark : public DeviceMark {
   public:
    SlowMark(SlowQueue* queue, int64_t at) : queue_(queue), at_(at) {}
    bool reached() override {
      if (queue_->done_ >= at_) return true;
      queue_->Step();
      return false;
    }

   private:
    SlowQueue* const queue_;
    const int64_t at_;
  };
  void Put(std::function<void()> work) {
    work_.push_back(std::move(work));
    ++told_;
  }

  Memory memory_;
  std::deque<std::function<void()>> work_;
  int64_t told_ = 0, done_ = 0;
  std::vector<std::unique_ptr<std::vector<uint8_t>>> pinned_;  // freed with the queue
};

}  // namespace tw
