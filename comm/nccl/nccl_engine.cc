#include "comm/nccl/nccl_engine.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <future>
#include <mutex>
#include <set>
#include <thread>

#include "comm/nccl/nccl_error.h"
#include "core/base/clock.h"
#include "core/base/patience.h"

namespace tw {
namespace {

// ncclCommAbort is not waited for longer than this: the job is ending anyway.
constexpr double kAbortSeconds = 10;
// NCCL's last messages get no more time than this, however long the deadline of a verb.
constexpr double kFinalizeSeconds = 30;

// Devices of this process that have a communicator.
std::mutex devices_mutex;
std::set<int>& DevicesInUse() {
  static auto* devices = new std::set<int>;
  return *devices;
}

}  // namespace

StatusOr<std::shared_ptr<NcclEngine>> NcclEngine::Create(const NcclOptions& options,
                                                         Communicator& control) {
  TW_CHECK(options.timeout_s > 0);
  std::shared_ptr<NcclEngine> engine(new NcclEngine(options, control.rank(), control.size()));
  const Status mine = engine->TakeDevice();
  // Nobody waits in NCCL for a rank that will not come.
  TW_ASSIGN_OR_RETURN(const std::vector<int64_t> able,
                      control.AllGatherInt(mine.ok(), {0, -1, "taking the devices"}));
  TW_RETURN_IF_ERROR(mine);
  for (size_t r = 0; r < able.size(); ++r) {
    if (!able[r]) return DataError("rank " + std::to_string(r) + " cannot use its device");
  }
  TW_RETURN_IF_ERROR(engine->InitNccl(control));
  return engine;
}

Status NcclEngine::TakeDevice() {
  int count = 0;
  TW_RETURN_IF_ERROR(CudaStatus(cudaGetDeviceCount(&count), "counting devices"));
  if (options_.device < 0 || options_.device >= count) {
    return DataError("there is no device " + std::to_string(options_.device) +
                     "; this process sees " + std::to_string(count));
  }
  {
    std::lock_guard<std::mutex> lock(devices_mutex);
    if (!DevicesInUse().insert(options_.device).second) {
      return BugError("device " + std::to_string(options_.device) +
                      " has an NCCL communicator already; a second one could wait for the first");
    }
    has_device_ = true;
  }
  TW_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(options_.device), "taking the device"));
  int least = 0, greatest = 0;  // other ranks wait for what is on it
  TW_RETURN_IF_ERROR(
      CudaStatus(cudaDeviceGetStreamPriorityRange(&least, &greatest), "making a stream"));
  return CudaStatus(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest),
                    "making a stream");
}

Status NcclEngine::InitNccl(Communicator& control) {
  struct {
    int32_t code = ncclSuccess;
    ncclUniqueId id{};
  } boot;
  if (rank_ == 0) boot.code = ncclGetUniqueId(&boot.id);
  TW_RETURN_IF_ERROR(control.Broadcast({reinterpret_cast<uint8_t*>(&boot), sizeof(boot)}, 0,
                                       {0, -1, "NCCL's id"}));
  TW_RETURN_IF_ERROR(
      NcclStatus(static_cast<ncclResult_t>(boot.code), nullptr, "making NCCL's id on rank 0"));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  Status status = NcclStatus(ncclCommInitRankConfig(&comm_, size_, boot.id, rank_, &config), comm_,
                             "starting NCCL");
  if (status.ok()) status = AwaitNccl("starting NCCL");
  if (!status.ok()) return Break(status);
  return OkStatus();
}

Status NcclEngine::AwaitNccl(const char* what) {
  const double end_ms = NowMs() + options_.timeout_s * 1e3;
  Patience patience;
  for (;;) {
    ncclResult_t state = ncclSuccess;
    TW_RETURN_IF_ERROR(NcclStatus(ncclCommGetAsyncError(comm_, &state), comm_, what));
    TW_RETURN_IF_ERROR(NcclStatus(state, comm_, what));
    if (state == ncclSuccess) return OkStatus();
    if (NowMs() > end_ms) {
      char seconds[32];
      std::snprintf(seconds, sizeof(seconds), "%g", options_.timeout_s);
      return PeerTimeout("rank " + std::to_string(rank_) + ": " + what + " timed out after " +
                         seconds + " s");
    }
    std::this_thread::sleep_for(
        std::chrono::duration<double, std::milli>(patience.NextSleepMs(/*moved=*/false)));
  }
}

NcclEngine::~NcclEngine() {
  if (has_device_) cudaSetDevice(options_.device);
  if (comm_) {
    const double end_ms = NowMs() + 1e3 * std::min(options_.timeout_s, kFinalizeSeconds);
    ncclResult_t state = ncclCommFinalize(comm_);
    while (state == ncclInProgress && NowMs() < end_ms) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (ncclCommGetAsyncError(comm_, &state) != ncclSuccess) state = ncclInternalError;
    }
    if (state == ncclSuccess) {
      ncclCommDestroy(comm_);
    } else {
      Abort();
    }
  }
  if (!abort_hangs_) {  // else these would hang, too
    for (const cudaEvent_t event : free_events_) cudaEventDestroy(event);
    if (stream_) cudaStreamDestroy(stream_);
  }
  if (!has_device_) return;
  std::lock_guard<std::mutex> lock(devices_mutex);
  DevicesInUse().erase(options_.device);
}

StatusOr<cudaEvent_t> NcclEngine::TakeEvent() {
  cudaEvent_t event = nullptr;
  if (free_events_.empty()) {
    TW_RETURN_IF_ERROR(
        CudaStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event"));
    return event;
  }
  event = free_events_.back();
  free_events_.pop_back();
  return event;
}

Status NcclEngine::Usable(const OpTag& tag) const {
  if (broken_.ok()) return OkStatus();
  return Annotate(broken_, ToString(tag) + " is given up");
}

Status NcclEngine::Prepare(NcclOperation& operation) {
  TW_RETURN_IF_ERROR(Usable(operation.tag));
  // A thread's current device is its own, and any thread may come.
  TW_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(options_.device), ToString(operation.tag)));
  TW_ASSIGN_OR_RETURN(operation.filled, TakeEvent());
  TW_ASSIGN_OR_RETURN(operation.finished, TakeEvent());
  return CudaStatus(cudaEventRecord(operation.filled, static_cast<cudaStream_t>(options_.producer)),
                    ToString(operation.tag));
}

void NcclEngine::Enqueue(NcclOperation* operation) { queue_.push_back(operation); }

Status NcclEngine::Issue(const NcclOperation& op) {
  const std::string name = ToString(op.tag);
  TW_RETURN_IF_ERROR(CudaStatus(cudaStreamWaitEvent(stream_, op.filled, 0), name));
  if (op.form == NcclOperation::Form::kAllGather) {
    return NcclStatus(
        ncclAllGather(op.from.data(), op.to.data(), op.from.size(), ncclUint8, comm_, stream_),
        comm_, name);
  }
  if (op.form == NcclOperation::Form::kBroadcast) {
    return NcclStatus(
        ncclBroadcast(op.to.data(), op.to.data(), op.to.size(), ncclUint8, op.root, comm_, stream_),
        comm_, name);
  }
  if (op.form == NcclOperation::Form::kSum) {
    const size_t count = op.to.size() / (op.type == ncclFloat64 ? sizeof(double) : sizeof(float));
    return NcclStatus(
        ncclAllReduce(op.to.data(), op.to.data(), count, op.type, ncclSum, comm_, stream_), comm_,
        name);
  }
  if (!op.from.empty() && op.from.data() != op.to.data()) {
    TW_RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(op.to.data(), op.from.data(), op.from.size(), cudaMemcpyDefault, stream_),
        name));
  }
  if (op.parts.empty()) return OkStatus();
  Status status = NcclStatus(ncclGroupStart(), comm_, name);
  for (const NcclOperation::Part& part : op.parts) {
    const ncclResult_t code =
        part.send ? ncclSend(part.data, part.bytes, ncclUint8, part.peer, comm_, stream_)
                  : ncclRecv(part.data, part.bytes, ncclUint8, part.peer, comm_, stream_);
    if (status.ok()) status = NcclStatus(code, comm_, name);
  }
  const ncclResult_t code = ncclGroupEnd();  // also after an error: the group is this thread's
  return status.ok() ? NcclStatus(code, comm_, name) : status;
}

Status NcclEngine::LaunchNext(const OpTag& looked_at) {
  for (;;) {
    // What was launched is on the stream, and may be followed by its event, once NCCL has nothing
    // in progress.
    ncclResult_t state = ncclSuccess;
    const OpTag tag = launching_ ? launching_->tag : looked_at;
    TW_RETURN_IF_ERROR(NcclStatus(ncclCommGetAsyncError(comm_, &state), comm_, ToString(tag)));
    TW_RETURN_IF_ERROR(NcclStatus(state, comm_, ToString(tag)));
    if (state == ncclInProgress) return OkStatus();
    if (launching_) {
      TW_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(launching_->finished, stream_), ToString(tag)));
      launching_->state = NcclOperation::State::kRunning;
      launching_ = nullptr;
    }
    if (queue_.empty()) return OkStatus();
    launching_ = queue_.front();
    queue_.pop_front();
    launching_->state = NcclOperation::State::kLaunching;
    TW_RETURN_IF_ERROR(Issue(*launching_));
  }
}

StatusOr<Progress> NcclEngine::Look(NcclOperation& operation) {
  TW_RETURN_IF_ERROR(Usable(operation.tag));
  const auto before = operation.state;
  Status status = CudaStatus(cudaSetDevice(options_.device), ToString(operation.tag));
  if (status.ok()) status = LaunchNext(operation.tag);
  if (status.ok() && operation.state == NcclOperation::State::kRunning) {
    const cudaError_t code = cudaEventQuery(operation.finished);
    if (code == cudaSuccess) operation.state = NcclOperation::State::kDone;
    if (code == cudaErrorNotReady) {
      cudaGetLastError();  // which remembers even that: the thread's next launch would fail of it
    } else {
      status = CudaStatus(code, ToString(operation.tag));
    }
  }
  if (!status.ok()) return Break(status);
  if (operation.state == NcclOperation::State::kDone) return Progress::kDone;
  return operation.state == before ? Progress::kIdle : Progress::kMoved;
}

void NcclEngine::Forget(NcclOperation& operation) {
  if (operation.finished && operation.state != NcclOperation::State::kDone && broken_.ok()) {
    (void)Break(PeerError(ToString(operation.tag) + " was left half way"));
  }
  for (const cudaEvent_t event : {operation.filled, operation.finished}) {
    if (event) free_events_.push_back(event);
  }
}

Status NcclEngine::Break(const Status& why) {
  if (!broken_.ok()) return broken_;
  broken_ = why;
  queue_.clear();
  launching_ = nullptr;
  Abort();
  return why;
}

void NcclEngine::Abort() {
  if (!comm_) return;
  // In a thread of its own: should it not come back, the job still ends with the error.
  std::packaged_task<void()> task([comm = comm_, device = options_.device] {
    cudaSetDevice(device);
    ncclCommAbort(comm);
  });
  const std::future<void> done = task.get_future();
  std::thread thread(std::move(task));
  const std::chrono::duration<double> patience(std::min(options_.timeout_s, kAbortSeconds));
  abort_hangs_ = done.wait_for(patience) != std::future_status::ready;
  abort_hangs_ ? thread.detach() : thread.join();
  comm_ = nullptr;
}

}  // namespace tw
