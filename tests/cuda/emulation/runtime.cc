#include "tests/cuda/emulation/runtime.h"

#include <cuda_runtime_api.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "tests/cuda/emulation/arena.h"

namespace tw::emulation {
// As in cuda_on_cpu.h, which cannot be included beside the runtime's own header.
using Submit = void (*)(cudaStream_t stream, std::function<void()> work);
void SetSubmit(Submit submit);
using TakeError = int (*)();
void SetTakeError(TakeError take);

namespace {

using Tasks = std::vector<std::function<void()>>;

struct Line {
  std::deque<std::function<void()>> tasks;
  std::unique_ptr<Tasks> captured;  // null: what comes is a task
  uint64_t put = 0, done = 0;
};

// Does tasks until `number` are done.
void RunUntil(Line& line, uint64_t number) {
  if (line.done >= number) return;
  const ArenaOpen open;
  while (line.done < number) {
    const std::function<void()> task = std::move(line.tasks.front());
    line.tasks.pop_front();
    ++line.done;
    task();
  }
}

}  // namespace
}  // namespace tw::emulation

struct CUstream_st {
  std::shared_ptr<tw::emulation::Line> line = std::make_shared<tw::emulation::Line>();
};
struct CUgraph_st {
  tw::emulation::Tasks tasks;
};
struct CUgraphExec_st {
  tw::emulation::Tasks tasks;
};
struct CUevent_st {
  std::shared_ptr<tw::emulation::Line> line;  // null: never recorded
  uint64_t number = 0;
};

namespace tw::emulation {
namespace {

struct Runtime {
  std::recursive_mutex mutex;
  std::array<CUstream_st, kDevices> defaults;
  std::set<cudaStream_t> streams;
  std::map<const uint8_t*, size_t> pinned;
  std::multimap<const uint8_t*, size_t> seen_by_both;
  RuntimeCounts counts;
  bool fail_copies = false;
  int fail_allocations = 0;
  int to_streams = 0;
};
Runtime& TheRuntime() {
  static auto* runtime = new Runtime;
  return *runtime;
}
thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

using Lock = std::lock_guard<std::recursive_mutex>;

cudaError_t Failed(cudaError_t error) { return last_error = error; }

Line& LineOf(cudaStream_t stream) {
  return stream ? *stream->line : *TheRuntime().defaults[static_cast<size_t>(current_device)].line;
}
void Push(cudaStream_t stream, std::function<void()> task) {
  Lock lock(TheRuntime().mutex);
  Line& line = LineOf(stream);
  if (line.captured) return line.captured->push_back(std::move(task));
  line.tasks.push_back(std::move(task));
  ++line.put;
}
// Of a stream whose capture what waits for it would break.
bool Captures(cudaStream_t stream) { return stream && stream->line->captured; }

bool IsPinned(const void* memory, size_t bytes) {
  const auto* at = static_cast<const uint8_t*>(memory);
  const auto& pinned = TheRuntime().pinned;
  auto it = pinned.upper_bound(at);
  if (it == pinned.begin()) return false;
  --it;
  return at + bytes <= it->first + it->second;
}

// Locked.
bool SeenByTheDevice(uintptr_t at, size_t bytes) {
  for (const auto& [memory, size] : TheRuntime().seen_by_both) {
    const auto begin = reinterpret_cast<uintptr_t>(memory);
    if (at >= begin && at + bytes <= begin + size) return true;
  }
  return false;
}

bool OnDevice(const void* memory, size_t bytes) {
  return ArenaHolds(memory, bytes) || SeenByTheDevice(reinterpret_cast<uintptr_t>(memory), bytes);
}

// Words that are addresses of the host's memory above the program's own: a kernel would follow
// them.
void CheckNoHostAddresses(const uint8_t* from, size_t bytes) {
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    uintptr_t word;
    std::memcpy(&word, from + i, sizeof(word));
    if (word < uintptr_t{0x550000000000} || word >> 47 != 0) continue;
    if (InArena(reinterpret_cast<void*>(word)) || SeenByTheDevice(word, 1)) continue;
    if (msync(reinterpret_cast<void*>(word / page * page), 1, MS_ASYNC) == 0) {
      Die("an address of the host is copied to the device");
    }
  }
}

}  // namespace

SeenByBoth::SeenByBoth(const void* memory, size_t bytes)
    : memory_(static_cast<const uint8_t*>(memory)) {
  Lock lock(TheRuntime().mutex);
  TheRuntime().seen_by_both.emplace(memory_, bytes);
}
SeenByBoth::~SeenByBoth() {
  Lock lock(TheRuntime().mutex);
  TheRuntime().seen_by_both.erase(TheRuntime().seen_by_both.find(memory_));
}

RuntimeCounts CountsOfRuntime() {
  Lock lock(TheRuntime().mutex);
  return TheRuntime().counts;
}

void FinishAllStreams() {
  Lock lock(TheRuntime().mutex);
  for (CUstream_st& stream : TheRuntime().defaults) RunUntil(*stream.line, stream.line->put);
  for (cudaStream_t stream : TheRuntime().streams) RunUntil(*stream->line, stream->line->put);
}

LaunchesToStreams::LaunchesToStreams() {
  Lock lock(TheRuntime().mutex);
  if (TheRuntime().to_streams++ > 0) return;
  SetSubmit(Push);
  SetTakeError([] { return static_cast<int>(std::exchange(last_error, cudaSuccess)); });
}
LaunchesToStreams::~LaunchesToStreams() {
  Lock lock(TheRuntime().mutex);
  FinishAllStreams();
  if (--TheRuntime().to_streams > 0) return;
  SetSubmit(nullptr);
  SetTakeError(nullptr);
}

void FailAllocations(int count) {
  Lock lock(TheRuntime().mutex);
  TheRuntime().fail_allocations = count;
}

void FailCopies(bool fail) {
  Lock lock(TheRuntime().mutex);
  TheRuntime().fail_copies = fail;
}

}  // namespace tw::emulation

using tw::emulation::Failed;
using tw::emulation::Lock;
using tw::emulation::TheRuntime;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = tw::emulation::kDevices;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= tw::emulation::kDevices) return Failed(cudaErrorInvalidDevice);
  tw::emulation::current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = tw::emulation::current_device;
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    default:
      return "emulated error";
  }
}
cudaError_t cudaGetLastError() { return std::exchange(tw::emulation::last_error, cudaSuccess); }

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  Lock lock(TheRuntime().mutex);
  if (TheRuntime().fail_allocations > 0) {
    --TheRuntime().fail_allocations;
    return Failed(cudaErrorMemoryAllocation);
  }
  ++TheRuntime().counts.allocations;
  *memory = tw::emulation::ArenaAllocate(bytes);
  return *memory ? cudaSuccess : Failed(cudaErrorMemoryAllocation);
}
// What is still to be done finds other numbers there then.
cudaError_t cudaFree(void* memory) {
  Lock lock(TheRuntime().mutex);
  TheRuntime().counts.frees += memory != nullptr;
  if (memory) tw::emulation::ArenaFree(static_cast<uint8_t*>(memory));
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  Lock lock(TheRuntime().mutex);
  ++TheRuntime().counts.allocations;
  bytes = (bytes + 255) / 256 * 256;
  *memory = std::aligned_alloc(256, bytes);
  std::memset(*memory, 0xCD, bytes);
  TheRuntime().pinned[static_cast<uint8_t*>(*memory)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  Lock lock(TheRuntime().mutex);
  if (TheRuntime().pinned.erase(static_cast<uint8_t*>(memory)) == 0) {
    tw::emulation::Die("memory is freed that is not pinned");
  }
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  Lock lock(TheRuntime().mutex);
  for (cudaStream_t stream : TheRuntime().streams) {
    if (tw::emulation::Captures(stream)) return Failed(cudaErrorStreamCaptureUnsupported);
  }
  tw::emulation::FinishAllStreams();
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned int, int) {
  Lock lock(TheRuntime().mutex);
  ++TheRuntime().counts.allocations;
  *stream = new CUstream_st;
  TheRuntime().streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Lock lock(TheRuntime().mutex);
  if (tw::emulation::Captures(stream)) return Failed(cudaErrorStreamCaptureUnsupported);
  tw::emulation::Line& line = tw::emulation::LineOf(stream);
  TheRuntime().counts.waits += line.done < line.put;
  tw::emulation::RunUntil(line, line.put);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Lock lock(TheRuntime().mutex);
  cudaStreamSynchronize(stream);
  TheRuntime().streams.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  Lock lock(TheRuntime().mutex);
  if (!stream) return Failed(cudaErrorStreamCaptureUnsupported);
  stream->line->captured = std::make_unique<tw::emulation::Tasks>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Lock lock(TheRuntime().mutex);
  *graph = new CUgraph_st{std::move(*stream->line->captured)};
  stream->line->captured.reset();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph,
                                          unsigned long long) {
  *executable = new CUgraphExec_st{graph->tasks};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  for (const auto& task : graph->tasks) tw::emulation::Push(stream, task);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int) {
  Lock lock(TheRuntime().mutex);
  ++TheRuntime().counts.allocations;
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Lock lock(TheRuntime().mutex);
  if (tw::emulation::Captures(stream)) return Failed(cudaErrorStreamCaptureUnsupported);
  tw::emulation::Line& line = tw::emulation::LineOf(stream);
  const auto device = static_cast<size_t>(tw::emulation::current_device);
  event->line = stream ? stream->line : TheRuntime().defaults[device].line;
  event->number = line.put;
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  Lock lock(TheRuntime().mutex);
  if (!event->line || event->line->done >= event->number) return cudaSuccess;
  tw::emulation::RunUntil(*event->line, event->line->done + 1);
  return Failed(cudaErrorNotReady);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Lock lock(TheRuntime().mutex);
  if (!event->line) return cudaSuccess;
  TheRuntime().counts.waits += event->line->done < event->number;
  tw::emulation::RunUntil(*event->line, event->number);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int) {
  Lock lock(TheRuntime().mutex);
  if (!event->line) return cudaSuccess;
  tw::emulation::Push(stream, [line = event->line, number = event->number] {
    tw::emulation::RunUntil(*line, number);
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  if (!tw::emulation::OnDevice(to, bytes)) tw::emulation::Die("a filling of no device memory");
  tw::emulation::Push(stream, [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  Lock lock(TheRuntime().mutex);
  if (TheRuntime().fail_copies) return Failed(cudaErrorIllegalAddress);
  const bool in = kind == cudaMemcpyHostToDevice, out = kind == cudaMemcpyDeviceToHost;
  if (!in && !out && kind != cudaMemcpyDeviceToDevice) tw::emulation::Die("a copy of no kind");
  if (out ? tw::emulation::InArena(to) : !tw::emulation::OnDevice(to, bytes)) {
    tw::emulation::Die("a copy goes to where its kind does not say");
  }
  if (in ? tw::emulation::InArena(from) : !tw::emulation::OnDevice(from, bytes)) {
    tw::emulation::Die("a copy comes from where its kind does not say");
  }
  TheRuntime().counts.copies += in || out;
  const auto* source = static_cast<const uint8_t*>(from);
  if (in && !tw::emulation::IsPinned(from, bytes)) {
    std::vector<uint8_t> kept(source, source + bytes);
    tw::emulation::Push(stream, [to, kept = std::move(kept)] {
      tw::emulation::CheckNoHostAddresses(kept.data(), kept.size());
      std::memcpy(to, kept.data(), kept.size());
    });
    return cudaSuccess;
  }
  tw::emulation::Push(stream, [=] {
    if (in) tw::emulation::CheckNoHostAddresses(source, bytes);
    std::memmove(to, from, bytes);
  });
  // To memory that is not pinned the runtime copies before it returns.
  if (out && !tw::emulation::IsPinned(to, bytes)) cudaStreamSynchronize(stream);
  return cudaSuccess;
}

}  // extern "C"
