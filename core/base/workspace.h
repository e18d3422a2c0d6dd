#pragma once
// Grow-only scratch memory: after the first step every request is served without an allocation.
// Not thread safe: one Workspace belongs to one thread (the lane).

#include <cstdint>
#include <map>
#include <memory>
#include <span>

namespace tw {

// 64-byte aligned bytes that only ever grow. Growing loses the contents.
class AlignedBuffer {
 public:
  uint8_t* Reserve(size_t bytes);
  uint8_t* data() const { return data_.get(); }
  size_t capacity() const { return capacity_; }

 private:
  struct Free {
    void operator()(uint8_t* p) const;
  };
  std::unique_ptr<uint8_t, Free> data_;
  size_t capacity_ = 0;
};

class Workspace {
 public:
  // `slot` tells apart buffers that live at the same time; contents are undefined.
  template <class T>
  std::span<T> Get(int slot, size_t count) {
    return {reinterpret_cast<T*>(slots_[slot].Reserve(count * sizeof(T))), count};
  }
  // The same in the host's memory, wherever Get's is: lengths, counts, lists. Slots are apart from
  // those of Get.
  template <class T>
  std::span<T> GetHost(int slot, size_t count) {
    return {reinterpret_cast<T*>(host_slots_[slot].Reserve(count * sizeof(T))), count};
  }
  size_t bytes() const;

 private:
  std::map<int, AlignedBuffer> slots_, host_slots_;
};

// Slots with an owner. Codecs use kCodec0...; nobody else may.
enum WorkspaceSlot : int {
  kScratchCodec0 = 0,
  kScratchCodec1 = 1,
  kScratchCodec2 = 2,
  kScratchCodec3 = 3,
  kScratchMessage = 10,  // fp32 copy of a message of another dtype
  kScratchMean = 11,     // fp32 mean of a gradient of another dtype
  kScratchSend0 = 12,    // bodies of even rounds
  kScratchSend1 = 13,    // bodies of odd rounds
  kScratchExchange0 = 20,
  kScratchExchange1 = 21,
  kScratchExchange2 = 22,
  kScratchExchange3 = 23,
};

}  // namespace tw
