#pragma once
// NcclEngine: the one NCCL communicator of a device and its stream. Takes operations one behind the
// other, launches each when NCCL has taken in the one before, watches for errors, and ends NCCL
// when something is wrong. Knows nothing of which operations belong together: see
// nccl_communicator.h.
//
// Thread safety: one thread at a time.

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <deque>
#include <memory>
#include <vector>

#include "comm/nccl/nccl_communicator.h"

namespace tw {

// What one verb moves on this rank. Lives in its ticket.
struct NcclOperation {
  enum class Form { kPairs, kAllGather, kBroadcast, kSum };
  enum class State { kWaiting, kLaunching, kRunning, kDone };
  struct Part {
    void* data;
    size_t bytes;
    int peer;  // a rank of the engine
    bool send;
  };

  OpTag tag;
  Form form = Form::kPairs;
  // kPairs: this rank's own part is copied, the others are sent and received.
  // kAllGather: `from` goes to all, what all send is at `to`. kBroadcast: `to`, from `root`.
  // kSum: the numbers of `type` at `to`, in place.
  std::vector<Part> parts;
  ByteSpan from;
  MutableByteSpan to;
  int root = 0;
  ncclDataType_t type = ncclFloat32;

  State state = State::kWaiting;
  cudaEvent_t filled = nullptr;    // the producer has written what is sent
  cudaEvent_t finished = nullptr;  // all of it has arrived
};

class NcclEngine {
 public:
  // Collective over `control`; see MakeNcclCommunicator.
  static StatusOr<std::shared_ptr<NcclEngine>> Create(const NcclOptions& options,
                                                      Communicator& control);
  // Lets NCCL finish, within the deadline; no operation is under way.
  ~NcclEngine();
  NcclEngine(const NcclEngine&) = delete;
  NcclEngine& operator=(const NcclEngine&) = delete;

  int rank() const { return rank_; }
  const NcclOptions& options() const { return options_; }

  // Notes on the producer's stream that the buffers of `operation` are filled now.
  Status Prepare(NcclOperation& operation);
  // Launches it when all that were enqueued before are launched. It stays where it is until it is
  // done or Forget was called.
  void Enqueue(NcclOperation* operation);
  // Launches what can be launched, and looks how far `operation` is. An error is the end of NCCL.
  StatusOr<Progress> Look(NcclOperation& operation);
  // Its ticket goes away. When it is not done its buffers may go away too: the end of NCCL.
  void Forget(NcclOperation& operation);
  // Ends NCCL; returns `why`, or for a second one what the first was.
  Status Break(const Status& why);
  // OK, or why an operation fails before it begins.
  Status Usable(const OpTag& tag) const;

 private:
  NcclEngine(const NcclOptions& options, int rank, int size)
      : options_(options), rank_(rank), size_(size) {}
  Status TakeDevice();
  Status InitNccl(Communicator& control);
  // Polls until NCCL has nothing in progress.
  Status AwaitNccl(const char* what);
  Status LaunchNext(const OpTag& looked_at);
  Status Issue(const NcclOperation& operation);
  StatusOr<cudaEvent_t> TakeEvent();
  void Abort();

  const NcclOptions options_;
  const int rank_, size_;
  bool has_device_ = false;
  ncclComm_t comm_ = nullptr;  // null after an abort
  cudaStream_t stream_ = nullptr;
  std::vector<cudaEvent_t> free_events_;
  std::deque<NcclOperation*> queue_;
  NcclOperation* launching_ = nullptr;
  Status broken_;
  bool abort_hangs_ = false;
};

}  // namespace tw
