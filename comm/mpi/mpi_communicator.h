#pragma once
// The communicator on MPI: direct non-blocking sends between ranks and a waiting loop of its own.
//
//   all-gather-v   own part to the n-1 others, beginning with the right neighbour
//   all-to-all-v   pairwise, likewise rotated, so that no link is hit by all ranks at once
//   broadcast      binomial tree; inner ranks pass on while they Wait()
//   own sum        MPI_Iallreduce, in an order of buckets that the first rank announces
//
// Parts travel in pieces of at least 256 KiB and at most 1 GiB (MPI counts are int); empty parts
// send nothing. A waiting rank spins for some microseconds, then sleeps 50-500 us between tests (a
// bare spin takes the core from the rank it waits for), but not while pieces arrive. Errors of MPI
// and lengths that differ from what was announced are PeerErrors.
//
// After an error or a missed deadline MPI may still write into the buffers of the operation: keep
// them, and end the job with Abort().

#include <memory>

#include "core/api/communicator.h"

namespace tw {

struct MpiCommunicatorOptions {
  double timeout_s = 300;
  int64_t max_message_bytes = int64_t{1} << 30;  // longer parts are split
};

// Collective over MPI_COMM_WORLD (duplicates it twice). REQUIRES: MPI initialised with
// MPI_THREAD_SERIALIZED or more; destroyed before MPI_Finalize, on all ranks.
StatusOr<std::unique_ptr<Communicator>> MakeMpiCommunicator(const MpiCommunicatorOptions& options);

}  // namespace tw
