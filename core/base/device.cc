#include "core/base/device.h"

#include <cstring>

namespace tw {
namespace {

thread_local DeviceQueue* current = nullptr;

}  // namespace

DeviceQueue* CurrentQueue() { return current; }

DeviceScope::DeviceScope(DeviceQueue* queue) : before_(std::exchange(current, queue)) {}
DeviceScope::~DeviceScope() { current = before_; }

DeviceBlock::DeviceBlock(DeviceMemory* memory, size_t bytes)
    : memory_(memory), data_(memory->Allocate(bytes)), size_(bytes) {}
DeviceBlock& DeviceBlock::operator=(DeviceBlock&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}
DeviceBlock::~DeviceBlock() {
  if (data_) memory_->Free(data_);
}

void CopyBytes(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  if (DeviceQueue* queue = current) return queue->Copy(to, from, bytes);
  std::memcpy(to, from, bytes);
}
void ZeroBytes(void* to, size_t bytes) {
  if (bytes == 0) return;
  if (DeviceQueue* queue = current) return queue->Zero(to, bytes);
  std::memset(to, 0, bytes);
}
void PutBytes(void* to, const void* host, size_t bytes) {
  if (bytes == 0) return;
  if (DeviceQueue* queue = current) return queue->CopyIn(to, host, bytes);
  std::memcpy(to, host, bytes);
}
void GetBytes(void* host, const void* from, size_t bytes) {
  if (bytes == 0) return;
  if (DeviceQueue* queue = current) return queue->CopyOut(host, from, bytes);
  std::memcpy(host, from, bytes);
}

}  // namespace tw
