#include "core/kernels/device_queue.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <string>

#include "core/kernels/device_queue_cuda.h"

namespace tw::kernels {
namespace {

struct CopyBytesOp : OpBase<device::CopySegment, None> {
  static int64_t Place(std::span<device::CopySegment> segments, const None&) {
    return device::PlaceCopies(segments);
  }
  static void Launch(const LaunchOf<device::CopySegment, None>& of) {
    device::CopySegments(of.table, of.stream);
  }
};

class EventMark : public DeviceMark {
 public:
  EventMark(std::shared_ptr<EventPool> pool, cudaEvent_t event)
      : event(event), pool_(std::move(pool)) {}
  ~EventMark() override { pool_->Give(event); }
  // After an error too: nobody should wait for what will not come.
  bool reached() override {
    if (event == nullptr || cudaEventQuery(event) != cudaErrorNotReady) return true;
    cudaGetLastError();  // which remembers even that
    return false;
  }
  const cudaEvent_t event;  // null where none could be made

 private:
  const std::shared_ptr<EventPool> pool_;
};

}  // namespace

int NextOp() {
  static std::atomic<int> count{0};
  return count++;
}

EventPool::~EventPool() {
  for (cudaEvent_t event : idle_) cudaEventDestroy(event);
}
cudaEvent_t EventPool::Take(CudaErrors& errors) {
  std::lock_guard<std::mutex> lock(mutex_);
  cudaEvent_t event = nullptr;
  if (idle_.empty()) {
    errors.Succeeds(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  } else {
    event = idle_.back();
    idle_.pop_back();
  }
  return event;
}
void EventPool::Give(cudaEvent_t event) {
  if (event == nullptr) return;
  std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(event);
}

CudaQueue::CudaQueue(const DeviceQueueOptions& options, cudaStream_t stream)
    : device_(options.device),
      stream_(stream),
      memory_(*options.memory),
      errors_(options.device),
      ring_(memory_, stream, errors_),
      scratch_(memory_),
      events_(std::make_shared<EventPool>()),
      not_finite_(reinterpret_cast<uint32_t*>(memory_.Allocate(sizeof(uint32_t)))) {
  errors_.Succeeds(cudaMemsetAsync(not_finite_, 0, sizeof(uint32_t), stream_));
}

CudaQueue::~CudaQueue() {
  cudaSetDevice(device_);
  cudaStreamSynchronize(stream_);
  memory_.Free(reinterpret_cast<uint8_t*>(not_finite_));
}

// ---- rows and launches ----

void CudaQueue::BeginTogether() { rows_.push_back({place_, place_}); }
void CudaQueue::Next() {
  Rows& rows = rows_.back();
  rows.furthest = std::max(rows.furthest, place_);
  place_ = rows.first;
}
void CudaQueue::EndTogether() {
  place_ = std::max(rows_.back().furthest, place_);
  rows_.pop_back();
  if (!rows_.empty()) return;
  place_ = 0;
  Flush();
}

std::unique_ptr<Batch> CudaQueue::TakeIdle(int op) {
  const auto at = static_cast<size_t>(op);
  if (at >= idle_.size() || idle_[at].empty()) return nullptr;
  std::unique_ptr<Batch> batch = std::move(idle_[at].back());
  idle_[at].pop_back();
  return batch;
}

bool CudaQueue::UseDevice() { return !errors_.any() && errors_.Succeeds(cudaSetDevice(device_)); }

void CudaQueue::Flush() {
  if (num_noted_ == 0) return;
  try {
    if (UseDevice()) LaunchNoted();
  } catch (const std::bad_alloc&) {  // Together ends in a destructor
    errors_.Note("no memory is left for tables and scratch of kernels");
  }
  ForgetNoted();
}

void CudaQueue::LaunchNoted() {
  // Each launch would multiply the coefficients in its table once more.
  if (clip_.limit > 0) Refuses("steps that are clipped");
  if (rows_.empty()) CountLaunch();  // a row that waited still works in the scratch it has
  size_t table_bytes = 0, scratch_bytes = 0;
  for (const auto& place : places_) {
    for (const auto& batch : place) {
      batch->Prepare();
      table_bytes += batch->table_bytes();
      scratch_bytes = std::max(scratch_bytes, batch->scratch_bytes());
    }
  }
  uint8_t* scratch = Scratch(scratch_bytes);
  const StagingRing::Piece tables = TakePiece(table_bytes);
  size_t at = 0;
  for (const auto& place : places_) {
    for (const auto& batch : place) {
      batch->Stage(tables.host + at, tables.device + at, scratch);
      at += batch->table_bytes();
    }
  }
  if (table_bytes > 0 && !SendPiece(tables, table_bytes)) return;
  device::TakeError();  // what others have left on this thread: that an event is not reached, say
  for (const auto& place : places_) {
    for (const auto& batch : place) batch->Launch(clip_, kernel_stream());
  }
  if (const char* error = device::TakeError()) errors_.Note(error);
}

StagingRing::Piece CudaQueue::TakePiece(size_t bytes) {
  return capture_ ? capture_->Take(bytes) : ring_.Take(bytes);
}
bool CudaQueue::SendPiece(const StagingRing::Piece& piece, size_t bytes) {
  return capture_ || errors_.Succeeds(cudaMemcpyAsync(piece.device, piece.host, bytes,
                                                      cudaMemcpyHostToDevice, stream_));
}
uint8_t* CudaQueue::Scratch(size_t bytes) {
  return capture_ ? capture_->Scratch(bytes) : scratch_.AtLeast(bytes);
}

void CudaQueue::ForgetNoted() {
  for (auto& place : places_) {
    for (auto& batch : place) {
      batch->Clear();
      const auto op = static_cast<size_t>(batch->op());
      if (op >= idle_.size()) idle_.resize(op + 1);
      idle_[op].push_back(std::move(batch));
    }
    place.clear();
  }
  num_noted_ = 0;
  bytes_in_ring_ = 0;
}

// ---- moves ----

void CudaQueue::Copy(void* to, const void* from, size_t bytes) {
  if (!rows_.empty()) {
    device::CopySegment segment;
    segment.to = static_cast<uint8_t*>(to);
    segment.from = static_cast<const uint8_t*>(from);
    segment.numel = static_cast<int64_t>(bytes);
    return Put<CopyBytesOp>(segment);
  }
  if (bytes == 0 || !UseDevice()) return;
  CountLaunch();
  errors_.Succeeds(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_));
}

void CudaQueue::Zero(void* to, size_t bytes) {
  if (!rows_.empty()) {
    device::CopySegment segment;
    segment.to = static_cast<uint8_t*>(to);
    segment.numel = static_cast<int64_t>(bytes);
    return Put<CopyBytesOp>(segment);
  }
  if (bytes == 0 || !UseDevice()) return;
  CountLaunch();
  errors_.Succeeds(cudaMemsetAsync(to, 0, bytes, stream_));
}

// Few bytes travel in their segment. More of them, within rows, go to the ring now and from there
// to their place when their turn comes; not so many that the ring would come round to them.
void CudaQueue::CopyIn(void* to, const void* host, size_t bytes) {
  device::CopySegment segment;
  segment.to = static_cast<uint8_t*>(to);
  segment.numel = static_cast<int64_t>(bytes);
  if (!rows_.empty() && bytes <= sizeof(segment.pattern)) {
    std::memcpy(segment.pattern, host, bytes);
    return Put<CopyBytesOp>(segment);
  }
  if (!UseDevice()) return;
  const bool in_place = rows_.empty() || bytes > ring_.part_bytes() / 2;
  if (in_place || bytes_in_ring_ + bytes > 2 * ring_.part_bytes()) Flush();
  if (in_place) {
    if (!rows_.empty()) ++place_;
    return SendThroughRing(static_cast<uint8_t*>(to), static_cast<const uint8_t*>(host), bytes);
  }
  const StagingRing::Piece piece = TakePiece(bytes);
  std::memcpy(piece.host, host, bytes);
  SendPiece(piece, bytes);
  bytes_in_ring_ += bytes;
  segment.from = piece.device;
  Put<CopyBytesOp>(segment);
}

void CudaQueue::SendThroughRing(uint8_t* to, const uint8_t* host, size_t bytes) {
  while (bytes > 0) {
    const size_t now = std::min(bytes, ring_.part_bytes());
    const StagingRing::Piece piece = TakePiece(now);
    std::memcpy(piece.host, host, now);
    // A graph's copy is from the device: what the host holds then is not what it holds now.
    const bool sent = capture_ ? errors_.Succeeds(cudaMemcpyAsync(
                                     to, piece.device, now, cudaMemcpyDeviceToDevice, stream_))
                               : errors_.Succeeds(cudaMemcpyAsync(to, piece.host, now,
                                                                  cudaMemcpyHostToDevice, stream_));
    if (!sent) return;
    to += now;
    host += now;
    bytes -= now;
  }
}

// What cannot be had is zeros; Wait tells why.
void CudaQueue::CopyOut(void* host, const void* from, size_t bytes) {
  Flush();
  if (!Refuses("what the host waits for") && UseDevice() &&
      errors_.Succeeds(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream_)) &&
      errors_.Succeeds(cudaStreamSynchronize(stream_))) {
    return;
  }
  std::memset(host, 0, bytes);
}

void CudaQueue::StartCopyOut(void* pinned, const void* from, size_t bytes) {
  Flush();
  if (bytes == 0 || Refuses("memory of the host") || !UseDevice()) return;
  errors_.Succeeds(cudaMemcpyAsync(pinned, from, bytes, cudaMemcpyDeviceToHost, stream_));
}

void CudaQueue::StartCopyIn(void* to, const void* pinned, size_t bytes) {
  Flush();
  if (bytes == 0 || Refuses("memory of the host") || !UseDevice()) return;
  errors_.Succeeds(cudaMemcpyAsync(to, pinned, bytes, cudaMemcpyHostToDevice, stream_));
}

uint8_t* CudaQueue::AllocatePinned(size_t bytes) {
  UseDevice();
  return AllocatePinnedBytes(bytes);
}
void CudaQueue::FreePinned(uint8_t* memory) {
  if (!Refuses("memory that is freed") && UseDevice()) {
    errors_.Succeeds(cudaStreamSynchronize(stream_));
  }
  cudaFreeHost(memory);
}

// ---- marks ----

std::unique_ptr<DeviceMark> CudaQueue::Mark() {
  Flush();
  UseDevice();
  const cudaEvent_t event = Refuses("a mark") ? nullptr : events_->Take(errors_);
  if (event && !errors_.any()) errors_.Succeeds(cudaEventRecord(event, stream_));
  return std::make_unique<EventMark>(events_, event);
}

void CudaQueue::After(const DeviceMark& mark) {
  Flush();
  const cudaEvent_t event = static_cast<const EventMark&>(mark).event;
  if (event && !Refuses("a mark") && UseDevice())
    errors_.Succeeds(cudaStreamWaitEvent(stream_, event, 0));
}

Status CudaQueue::Wait() {
  Flush();
  if (Refuses("what the host waits for")) return DataError("a capture does nothing to wait for");
  if (UseDevice() && errors_.Succeeds(cudaStreamSynchronize(stream_))) {
    ring_.FreeOld();
    memory_.GiveBack();
  }
  return errors_.status();
}

Status CudaQueue::WaitFor(const DeviceMark& mark) {
  const cudaEvent_t event = static_cast<const EventMark&>(mark).event;
  if (event && !Refuses("what the host waits for") && UseDevice()) {
    errors_.Succeeds(cudaEventSynchronize(event));
  }
  return errors_.status();
}

StatusOr<std::unique_ptr<DeviceKernels>> MakeDeviceQueue(const DeviceQueueOptions& options) {
  CudaErrors errors(options.device);
  cudaStream_t stream = nullptr;  // the default one
  errors.Succeeds(cudaSetDevice(options.device));
  if (!errors.any() && options.stream == QueueStream::kOwn) {
    // Before the blocks of backward's kernels that have not started: these are few and short, and
    // other ranks wait for them.
    int least = 0, greatest = 0;
    errors.Succeeds(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    errors.Succeeds(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
  }
  TW_RETURN_IF_ERROR(errors.status());
  try {
    auto queue = std::make_unique<CudaQueue>(options, stream);
    TW_RETURN_IF_ERROR(queue->Wait());
    return queue;
  } catch (const std::bad_alloc&) {
    errors.Note("no memory is left for the tables of a queue");
    return errors.status();
  }
}

}  // namespace tw::kernels
