#pragma once
// MpiSession: one process's stay in an MPI job (Open MPI, MPI_THREAD_SERIALIZED).
//
// The main thread calls Init and Finalize; in between one thread at a time (the lane) makes every
// MPI call, through the communicator. Nothing here hangs for ever: a watchdog thread, started
// before MPI_Init, ends the process with one line and exit code 4 when not all ranks have arrived
// after timeout_s, and again when Finalize does not come back.

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "core/api/communicator.h"

namespace tw {

// Where a rank runs; ranks of one host share memory.
struct RankPlace {
  int rank = 0;
  int size = 1;
  int local_rank = 0;
  int local_size = 1;
  int first_here = 0;  // lowest rank on this host
  std::string host;
};

// Ends the process when what is guarded takes too long. Thread safe.
class Watchdog {
 public:
  Watchdog() = default;
  ~Watchdog() { Disarm(); }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // After timeout_s without Disarm(): prints "tightwire: <line>" and _exit(code).
  void Arm(double timeout_s, std::string line, int code);
  void Disarm();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool armed_ = false;
  std::thread thread_;
};

class MpiSession {
 public:
  // Initialises MPI and agrees once with all ranks. At most one session a process. On failure MPI
  // may be half alive: end the process. rank_hint: what a launcher says this rank will be; higher
  // ones wait a little longer, so that one of them speaks when a rank is missing.
  static StatusOr<std::unique_ptr<MpiSession>> Init(double timeout_s, int rank_hint = 0);
  // Finalizes when the owner has not; REQUIRES the main thread.
  ~MpiSession();

  const RankPlace& place() const { return place_; }
  // The communicator over all ranks, owned by the session. Its verbs have deadline timeout_s.
  Communicator& communicator() { return *communicator_; }
  // REQUIRES: the main thread, the lane idle or joined. When other ranks are gone and MPI cannot
  // finish within timeout_s, the process ends with code 4. Idempotent.
  void Finalize();

 private:
  explicit MpiSession(double timeout_s) : timeout_s_(timeout_s) {}

  double timeout_s_;
  RankPlace place_;
  std::unique_ptr<Communicator> communicator_;
  bool finalized_ = false;
  Watchdog watchdog_;
};

}  // namespace tw
