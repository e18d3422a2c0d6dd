#include <cuda_runtime_api.h>

#include <atomic>
#include <cstring>
#include <utility>

#include "tests/comm/nccl/fake_gpu.h"
#include "tests/comm/nccl/fake_stream.h"

namespace {

std::atomic<int> num_devices = 8, live_streams = 0, live_events = 0;
int streams_before = 0, events_before = 0;  // Reset
thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

}  // namespace

CUstream_st::CUstream_st() : thread_([this] { Work(); }) { ++live_streams; }

CUstream_st::~CUstream_st() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  thread_.join();
  --live_streams;
}

void CUstream_st::Push(std::function<void()> task) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_all();
}

void CUstream_st::Work() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return closing_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

namespace tw::fake_gpu {

void ResetRuntime(int devices) {
  num_devices = devices;
  streams_before = live_streams;
  events_before = live_events;
}
int LiveStreams() { return live_streams - streams_before; }
int LiveEvents() { return live_events - events_before; }
bool ErrorLeft() { return last_error != cudaSuccess; }

}  // namespace tw::fake_gpu

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = num_devices;
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= num_devices) return cudaErrorInvalidDevice;
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorNoDevice ? "no CUDA-capable device is detected" : "fake error";
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = *greatest = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned int, int) {
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  stream->Push([&] {
    std::lock_guard<std::mutex> lock(mutex);
    done = true;
    changed.notify_all();
  });
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [&] { return done; });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int) {
  *event = new CUevent_st;
  ++live_events;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  --live_events;
  return cudaSuccess;
}
// The default stream has always done what it was given.
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const auto state = event->state;
  int turn = 0;
  {
    std::lock_guard<std::mutex> lock(state->mutex);
    turn = ++state->recorded;
  }
  const auto reach = [state, turn] {
    std::lock_guard<std::mutex> lock(state->mutex);
    state->reached = turn;
    state->changed.notify_all();
  };
  if (stream) {
    stream->Push(reach);
  } else {
    reach();
  }
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  std::lock_guard<std::mutex> lock(event->state->mutex);
  if (event->state->reached == event->state->recorded) return cudaSuccess;
  return last_error = cudaErrorNotReady;  // which CUDA remembers, too
}
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int) {
  const auto state = event->state;
  int turn = 0;
  {
    std::lock_guard<std::mutex> lock(state->mutex);
    turn = state->recorded;
  }
  stream->Push([state, turn] {
    std::unique_lock<std::mutex> lock(state->mutex);
    state->changed.wait(lock, [&] { return state->reached >= turn; });
  });
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  stream->Push([=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}

}  // extern "C"
