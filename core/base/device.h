#pragma once
// Memory of a device and the work on it, as the rest of the program sees them.
//
// Parameters, gradients, states, bodies and scratch of a run lie all in the host's memory, or all
// in one device's. In the second case whoever works on them does so within a DeviceScope: until it
// ends, the kernels (core/kernels) and the moves below that this thread calls go to the scope's
// queue. A queue works in the order of the calls and is done some time later; nothing waits for it
// but what says so, and results on the host are only what says so. Without a scope everything is
// the host's and is done when the call returns.
//
// Addresses of a device are never read or written by the host.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "core/base/bytes.h"
#include "core/base/status.h"

namespace tw {

// Thread safe.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  virtual uint8_t* Allocate(size_t bytes) = 0;  // aligned to 256; throws std::bad_alloc
  // What the device is still doing may go on with it. Waits for nothing: a thread that waited here
  // for a peer's bytes could not give the peer up.
  virtual void Free(uint8_t* memory) = 0;
  // Gives back what was freed, when all that the device does is done, for which it waits.
  virtual void GiveBack() {}
};

// What a queue had been told at some moment.
class DeviceMark {
 public:
  virtual ~DeviceMark() = default;
  virtual bool reached() = 0;  // does not wait
};

// One thread at a time.
class DeviceQueue {
 public:
  virtual ~DeviceQueue() = default;
  virtual DeviceMemory& memory() = 0;

  virtual void Copy(void* to, const void* from, size_t bytes) = 0;  // within the device
  virtual void Zero(void* to, size_t bytes) = 0;
  virtual void CopyIn(void* to, const void* host, size_t bytes) = 0;     // `host` is free on return
  virtual void CopyOut(void* host, const void* from, size_t bytes) = 0;  // waits
  // To and from memory of the host that AllocatePinned gave; done when a later mark is reached.
  virtual void StartCopyOut(void* pinned, const void* from, size_t bytes) = 0;
  virtual void StartCopyIn(void* to, const void* pinned, size_t bytes) = 0;
  virtual uint8_t* AllocatePinned(size_t bytes) = 0;
  virtual void FreePinned(uint8_t* memory) = 0;

  virtual std::unique_ptr<DeviceMark> Mark() = 0;
  // What is put here from now on starts when the mark, of any queue, is reached.
  virtual void After(const DeviceMark& mark) = 0;
  // Waits until all is done, or all before the mark, which is one of this queue. The first error of
  // anything that was put here; then it stays so.
  virtual Status Wait() = 0;
  virtual Status WaitFor(const DeviceMark& mark) = 0;

  // See Together.
  virtual void BeginTogether() = 0;
  virtual void Next() = 0;
  virtual void EndTogether() = 0;
  // Another number when calls were launched since, and no row of a Together has more to come:
  // memory that was scratch of what came before may then be that of what comes.
  uint64_t launches() const { return launches_; }

 protected:
  void CountLaunch() { ++launches_; }

 private:
  uint64_t launches_ = 0;
};

// Memory of a device that is freed with the object.
class DeviceBlock {
 public:
  DeviceBlock() = default;
  DeviceBlock(DeviceMemory* memory, size_t bytes);
  DeviceBlock(DeviceBlock&& other) noexcept { *this = std::move(other); }
  DeviceBlock& operator=(DeviceBlock&& other) noexcept;
  ~DeviceBlock();
  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  DeviceMemory* memory_ = nullptr;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// What a run whose tensors lie on a device works with; all null: they are the host's.
struct RunDevice {
  DeviceMemory* memory = nullptr;
  // Where LibTorch's forward and backward go, and the optimizer behind them. For the thread that
  // trains, and for those that run backward while it waits for them.
  DeviceQueue* training = nullptr;
  DeviceQueue* lane = nullptr;  // for the lane's thread, or whoever waits until it is idle
};

// Of this thread; null: the host.
DeviceQueue* CurrentQueue();

class DeviceScope {
 public:
  explicit DeviceScope(DeviceQueue* queue);  // null: the host again
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  DeviceQueue* const before_;
};

// Work on many tensors that do not touch each other's memory: on a device, calls at the same place
// of their rows become one launch. Nothing on the host.
//
//   Together together;
//   for (...) {
//     together.Next();       // starts a row
//     ...                    // the calls of one row keep their order
//   }
//
// A Together within a row makes rows within it. Nothing may wait for the device meanwhile, but
// CopyOut and what is made of it: they end the common launch early.
class Together {
 public:
  Together() : queue_(CurrentQueue()) {
    if (queue_) queue_->BeginTogether();
  }
  ~Together() {
    if (queue_) queue_->EndTogether();
  }
  Together(const Together&) = delete;
  Together& operator=(const Together&) = delete;
  void Next() {
    if (queue_) queue_->Next();
  }

 private:
  DeviceQueue* const queue_;
};

// Between places of the memory that this thread works on.
void CopyBytes(void* to, const void* from, size_t bytes);
void ZeroBytes(void* to, size_t bytes);
// From and to variables of the host. GetBytes waits.
void PutBytes(void* to, const void* host, size_t bytes);
void GetBytes(void* host, const void* from, size_t bytes);

// A little-endian number at any address of the memory that this thread works on.
template <class T>
void PutNumber(uint8_t* to, T value) {
  uint8_t bytes[sizeof(T)];
  StoreLE(bytes, value);
  PutBytes(to, bytes, sizeof(T));
}
template <class T>
T GetNumber(const uint8_t* from) {
  uint8_t bytes[sizeof(T)];
  GetBytes(bytes, from, sizeof(T));
  return LoadLE<T>(bytes);
}

}  // namespace tw
