#include "core/base/workspace.h"

#include <cstdlib>
#include <new>

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

size_t Workspace::bytes() const {
  size_t total = 0;
  for (const auto& [slot, buffer] : slots_) total += buffer.capacity();
  for (const auto& [slot, buffer] : host_slots_) total += buffer.capacity();
  return total;
}

}  // namespace tw
