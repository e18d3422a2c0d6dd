#pragma once
// Communicator: bytes between ranks. The asynchronous verbs are virtual; the blocking ones are
// written on top of them, so every byte leaves through one place and is counted there.
//
// Thread safety: one thread at a time calls the verbs (the lane thread; MPI runs with
// MPI_THREAD_SERIALIZED). All ranks issue the same verbs in the same order within each bucket
// (OpTag); operations of different buckets may start and finish in any order on every rank. Every
// wait has a deadline; its error (fault kPeer) names the tag and the ranks that are missing.

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/api/async.h"
#include "core/base/bytes.h"
#include "core/base/status.h"
#include "core/base/tensor_view.h"

namespace tw {

// Names an operation in errors and keeps overlapping ones apart: a bucket is a channel of its own.
struct OpTag {
  uint64_t step = 0;
  int32_t bucket = -1;    // -1: not about a bucket
  const char* what = "";  // static text: "gather", "reduce-scatter", ...
};
std::string ToString(const OpTag& tag);

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const char* name() const = 0;  // "thread", "mpi", "nccl"

  // Everybody gets everybody's bytes, in rank order. sizes[r] is rank r's length, known to all;
  // `all` is their sum long. `mine` may be its own place inside `all`.
  virtual std::unique_ptr<Ticket> StartAllGatherV(ByteSpan mine, std::span<const int64_t> sizes,
                                                  MutableByteSpan all, const OpTag& tag) = 0;
  // send is the concatenation for ranks 0..n-1; recv likewise. Own part is copied. send and recv do
  // not overlap.
  virtual std::unique_ptr<Ticket> StartAllToAllV(ByteSpan send, std::span<const int64_t> send_sizes,
                                                 MutableByteSpan recv,
                                                 std::span<const int64_t> recv_sizes,
                                                 const OpTag& tag) = 0;
  virtual std::unique_ptr<Ticket> StartBroadcast(MutableByteSpan bytes, int root,
                                                 const OpTag& tag) = 0;
  // The sum over ranks of fp32 or fp64 numbers, in place, by the transport's own all-reduce: the
  // same bits on all ranks, in an order of additions that is the transport's and may depend on the
  // length. The first call may block until all ranks have made theirs. Null where the transport has
  // none.
  virtual std::unique_ptr<Ticket> StartOwnSum(MutableByteSpan /*numbers*/, DType /*type*/,
                                              const OpTag& /*tag*/) {
    return nullptr;
  }
  // A communicator over the ranks that pass the same color, in their order; null where color is
  // negative. All ranks call it together, with nothing under way, and drop what they got before
  // this communicator goes. Errors name ranks as this communicator does.
  virtual StatusOr<std::unique_ptr<Communicator>> Split(int color) = 0;
  // What carries numbers of the host's memory: lengths, counts, agreements. This communicator
  // itself, unless its spans are memory of a device; the same ranks then, by the same numbers. The
  // verbs below from AllGatherInt on go through it.
  virtual Communicator& control() { return *this; }
  // Whether the spans of the verbs above are memory of a device.
  bool on_device() { return &control() != this; }
  // Bytes this rank handed to the transport so far (own copies not counted).
  virtual int64_t bytes_sent() const = 0;
  // Ends the job on all ranks with this exit code. Does not return.
  [[noreturn]] virtual void Abort(int code) = 0;

  // ---- blocking verbs on top ----
  Status AllGatherV(ByteSpan mine, std::span<const int64_t> sizes, MutableByteSpan all,
                    const OpTag& tag);
  Status AllToAllV(ByteSpan send, std::span<const int64_t> send_sizes, MutableByteSpan recv,
                   std::span<const int64_t> recv_sizes, const OpTag& tag);
  Status Broadcast(MutableByteSpan bytes, int root, const OpTag& tag);
  Status Barrier(const OpTag& tag);
  // Each rank's value, in rank order.
  StatusOr<std::vector<int64_t>> AllGatherInt(int64_t value, const OpTag& tag);
  // Control data (a few numbers): gathered and added in rank order, so the bits are the same
  // everywhere.
  Status AllReduceSum(std::span<double> values, const OpTag& tag);
  // OK when all ranks pass the same fingerprint; otherwise the same error on all of them, naming
  // the ranks that differ from rank 0 ("ranks 1, 3 have a different <what> than rank 0").
  // `differing` is the fault of that error; of one of the wire it is the peer.
  Status Agree(uint64_t fingerprint, const std::string& what, Fault differing = Fault::kPeer);
};

}  // namespace tw
