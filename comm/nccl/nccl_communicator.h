#pragma once
// The communicator on NCCL, for bytes that lie in device memory.
//
//   all-gather-v   ncclAllGather where all lengths are equal, else sends and receives in one group
//   all-to-all-v   sends and receives in one group
//   broadcast      ncclBroadcast; in a part, sends from the root
//   own sum        ncclAllReduce; a part has none
//
// The spans of its verbs are addresses of the device, which the host never reads; what is on
// the host (lengths, agreements) goes through control(), the launcher's communicator, and no byte
// of a device ever does. A verb waits for what was put on the producer's stream before its Start;
// when its ticket is done the bytes are there for every stream. Everything runs on a stream of the
// communicator's own.
//
// One NCCL communicator a device is ever in use: two on one device can wait for each other for
// ever. So what Split gives is a view of the same one: sends and receives between its members.
// Verbs of the whole and of a part are not under way at the same time.
//
// NCCL knows no tags: what two ranks send each other has to be issued in the same order on both,
// while buckets come in any order. So the first rank announces through the control communicator
// which bucket's verb comes next (4 bytes a rank), and the others keep to it. With same_order
// nothing is announced: then the caller starts all verbs in the same order on all ranks.
//
// Nothing hangs: NCCL is made non-blocking and is polled to a deadline, at its start too. Each verb
// has a witness, one byte to every other rank through control(), so that a missed deadline names
// the ranks that never came. A missed deadline, an error that NCCL finds while it works (a peer
// that died) and a ticket dropped half way end in ncclCommAbort; every later verb then fails at
// once with the first error. End the job with Abort().

#include <memory>

#include "core/api/communicator.h"

namespace tw {

struct NcclOptions {
  int device = 0;          // of cudaSetDevice
  double timeout_s = 300;  // of the start and of every verb; not below the control communicator's
  bool same_order = false;
  void* producer = nullptr;  // the cudaStream_t that fills the buffers; null: the default stream
};

// Collective over the ranks of `control`, which carries NCCL's id, and outlives what is returned.
// Errors: kData when a rank has no such device, kBug when the device has a communicator already,
// kPeer when NCCL does not come up within the deadline.
StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(const NcclOptions& options,
                                                             Communicator& control);

}  // namespace tw
