#pragma once
// Grow-only scratch memory: after the first step every request is served without an allocation.
// Not thread safe: one Workspace belongs to one thread (the lane).

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/base/device.h"

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

// Scratch memory where the tensors lie: the host's, or a device's.
class Workspace {
 public:
  explicit Workspace(DeviceMemory* memory = nullptr) : memory_(memory) {}

  // `slot` tells apart buffers that live at the same time; contents are undefined. Within Together
  // (core/base/device.h) a device gives new memory at each call: what was given before is in use
  // until its calls are launched.
  template <class T>
  std::span<T> Get(int slot, size_t count) {
    uint8_t* const data =
        memory_ ? OnDevice(slot, count * sizeof(T)) : slots_[slot].Reserve(count * sizeof(T));
    return {reinterpret_cast<T*>(data), count};
  }
  // Memory of the host, whatever the tensors': lengths and counts. Its slots are others than Get's.
  template <class T>
  std::span<T> GetHost(int slot, size_t count) {
    return {reinterpret_cast<T*>(host_slots_[slot].Reserve(count * sizeof(T))), count};
  }
  size_t bytes() const;  // of Get's

 private:
  // One slot's memory on a device. What was given since the last launch lies in pieces, one behind
  // the other; a slot that needed several gets one large enough the next time.
  struct Arena {
    std::vector<DeviceBlock> pieces;
    size_t used = 0;  // of the last piece
    size_t given = 0;
    uint64_t launches = 0;
  };
  uint8_t* OnDevice(int slot, size_t bytes);

  DeviceMemory* memory_;
  std::map<int, AlignedBuffer> slots_, host_slots_;
  std::map<int, Arena> arenas_;
};

// Slots with an owner. Codecs use kCodec0...; nobody else may.
enum WorkspaceSlot : int {
  kScratchCodec0 = 0,
  kScratchCodec1 = 1,
  kScratchCodec2 = 2,
  kScratchCodec3 = 3,
  kScratchMessage = 10,   // fp32 copy of a message of another dtype
  kScratchMean = 11,      // fp32 mean of a gradient of another dtype
  kScratchFeedback = 14,  // a policy's own
  kScratchSend0 = 12,     // bodies of even rounds
  kScratchSend1 = 13,     // bodies of odd rounds
  kScratchExchange0 = 20,
  kScratchExchange1 = 21,
  kScratchExchange2 = 22,
  kScratchExchange3 = 23,
};

}  // namespace tw
