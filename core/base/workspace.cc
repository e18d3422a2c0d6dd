#include "core/base/workspace.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "core/base/status.h"

namespace tw {

void AlignedBuffer::Free::operator()(uint8_t* p) const { std::free(p); }

uint8_t* AlignedBuffer::Reserve(size_t bytes) {
  if (bytes > capacity_ || !data_) {
    size_t rounded = (bytes + 63) / 64 * 64;
    if (rounded == 0) rounded = 64;
    data_.reset();
    data_.reset(static_cast<uint8_t*>(std::aligned_alloc(64, rounded)));
    if (!data_) throw std::bad_alloc();
    capacity_ = rounded;
  }
  return data_.get();
}

uint8_t* Workspace::OnDevice(int slot, size_t bytes) {
  DeviceQueue* const queue = CurrentQueue();
  TW_CHECK(queue != nullptr);
  Arena& arena = arenas_[slot];
  bytes = std::max<size_t>(256, (bytes + 255) / 256 * 256);
  if (arena.launches != queue->launches()) {
    if (arena.pieces.size() > 1 || (!arena.pieces.empty() && arena.pieces[0].size() < bytes)) {
      const size_t whole = std::max(arena.given, bytes);
      arena.pieces.clear();
      arena.pieces.emplace_back(memory_, whole);
    }
    arena.launches = queue->launches();
    arena.used = arena.given = 0;
  }
  if (arena.pieces.empty() || arena.pieces.back().size() - arena.used < bytes) {
    arena.pieces.emplace_back(memory_, bytes);
    arena.used = 0;
  }
  uint8_t* const data = arena.pieces.back().data() + arena.used;
  arena.used += bytes;
  arena.given += bytes;
  return data;
}

size_t Workspace::bytes() const {
  size_t total = 0;
  for (const auto& [slot, arena] : arenas_) {
    for (const DeviceBlock& piece : arena.pieces) total += piece.size();
  }
  for (const auto& [slot, buffer] : slots_) total += buffer.capacity();
  for (const auto& [slot, buffer] : host_slots_) total += buffer.capacity();
  return total;
}

}  // namespace tw
