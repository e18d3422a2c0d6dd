#pragma once
// The communicator of ranks whose bytes lie in device memory while the wire between them, MPI's as
// a rule, reads and writes the host's: everything goes through pinned memory.
//
//   out    what is sent is copied to pinned memory, behind all that the queue was told before
//   wire   when the copy is there the wire's verb starts on it
//   in     when that is done what has arrived is copied to the device, and the ticket is done: the
//          bytes are there for what is put on the queue from then on
//
// The spans of its verbs are addresses of the device. A rank's own part never leaves it. The wire's
// verbs start in the order in which these were started, so that all ranks agree within a bucket,
// as soon as any ticket is looked at. control() is the wire; so are deadlines, which begin when the
// wire's verb does, and the bytes that are counted.
//
// After the first steps nothing is allocated: pinned memory goes from one verb to the next. That of
// a verb that failed or was dropped half way is never used again, nor freed: the wire may still be
// at it. When its turn on the wire had not come, every later verb fails at once: end the job with
// Abort().
//
// Thread safety: the thread of the queue.

#include <memory>

#include "core/api/communicator.h"
#include "core/base/device.h"

namespace tw {

// `wire` and `queue` outlive what is returned, its parts and its tickets.
std::unique_ptr<Communicator> MakeStagedCommunicator(Communicator& wire, DeviceQueue& queue);

}  // namespace tw
