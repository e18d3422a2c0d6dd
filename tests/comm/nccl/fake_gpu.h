#pragma once
// Devices that are none: the part of the CUDA runtime and of NCCL that comm/nccl calls, on threads
// of this process. A device is a number, its memory the host's, a stream a thread that works off
// what it was given, and what ranks send each other waits in the sender's stream until the receiver
// takes it, as on GPUs: what is wrong in order or waits for a thread that never comes hangs here
// too.
//
// Ranks are threads, each with a device of its own. NCCL's calls return before they have done
// anything, as it does when it is non-blocking, and go on when its state is asked for.

#include <cstdint>

namespace tw::fake_gpu {

struct Faults {
  int num_devices = 8;
  int init_fails_on = -1;  // rank whose ncclCommInitRankConfig fails
  int init_hangs_on = -1;  // rank that NCCL never sees
  int stuck = -1;          // rank whose stream stands still at its first exchange
  bool abort_hangs = false;
  int polls_in_progress = 2;  // looks at a communicator's state before a call has been taken in
};

// Forgets all, and counts what is alive from here on; lets an abort that hangs come back.
void Reset(const Faults& faults = {});
// From now on what is asked about the state of this rank's communicator is an error.
void FailAsync(int rank);

int LiveCommunicators();
int LiveStreams();
int LiveEvents();
// Whether cudaGetLastError would say something on this thread: to whoever launches next.
bool ErrorLeft();
int NumAborted();
// Sends and receives that two ranks did not mean alike.
int NumMismatched();

}  // namespace tw::fake_gpu
