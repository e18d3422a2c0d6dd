#include "comm/mpi/mpi_session.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "comm/mpi/mpi_communicator.h"
#include "comm/mpi/mpi_error.h"

namespace tw {
namespace {

// The launcher ends the job on the first watchdog's line, and takes its second over that; meanwhile
// the others stay silent.
double StaggerSeconds(int rank) { return 1.5 * std::clamp(rank, 0, 3); }

// What Open MPI's TCP transport should do other than by default; a setting of the user's (mpirun
// --mca or the environment) goes first. Its protocol for long messages has the receiver ask for
// each part, and the link stands still meanwhile: 0.80 to 0.83 of a rate-limited link, where plain
// sends reach what docs/benchmarks.md says under `bench exchange`.
void PreferPlainTcpSends() {
  constexpr const char* kSettings[][2] = {
      {"OMPI_MCA_btl_tcp_flags", "1"},             // sends only: no put, no get
      {"OMPI_MCA_btl_tcp_eager_limit", "300000"},  // above the pieces that messages are cut into
      {"OMPI_MCA_btl_tcp_rndv_eager_limit", "300000"},  // not below the eager limit
  };
  for (const auto& [name, value] : kSettings) setenv(name, value, /*overwrite=*/0);
}

StatusOr<RankPlace> FindPlace() {
  RankPlace place;
  MPI_Comm_rank(MPI_COMM_WORLD, &place.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &place.size);
  MPI_Comm local = MPI_COMM_NULL;
  TW_RETURN_IF_ERROR(MpiStatus(
      MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, place.rank, MPI_INFO_NULL, &local),
      "splitting ranks by host"));
  MPI_Comm_rank(local, &place.local_rank);
  MPI_Comm_size(local, &place.local_size);
  place.first_here = place.rank;
  TW_RETURN_IF_ERROR(
      MpiStatus(MPI_Bcast(&place.first_here, 1, MPI_INT, 0, local), "splitting ranks by host"));
  MPI_Comm_free(&local);
  char host[MPI_MAX_PROCESSOR_NAME] = "";
  int length = 0;
  MPI_Get_processor_name(host, &length);
  place.host.assign(host, static_cast<size_t>(length));
  return place;
}

}  // namespace

void Watchdog::Arm(double timeout_s, std::string line, int code) {
  Disarm();
  armed_ = true;
  thread_ = std::thread([this, timeout_s, line = std::move(line), code] {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto limit = std::chrono::duration<double>(timeout_s);
    if (changed_.wait_for(lock, limit, [this] { return !armed_; })) return;
    std::fprintf(stderr, "tightwire: %s\n", line.c_str());
    std::fflush(stderr);
    _exit(code);
  });
}

void Watchdog::Disarm() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    armed_ = false;
  }
  changed_.notify_all();
  thread_.join();
}

StatusOr<std::unique_ptr<MpiSession>> MpiSession::Init(double timeout_s, int rank_hint) {
  std::unique_ptr<MpiSession> session(new MpiSession(timeout_s));
  char seconds[32];
  std::snprintf(seconds, sizeof(seconds), "%g", timeout_s);
  session->watchdog_.Arm(timeout_s + StaggerSeconds(rank_hint),
                         std::string("not all ranks arrived within ") + seconds +
                             " s of starting MPI; is every host up, and the program on it?",
                         static_cast<int>(Fault::kPeer));
  PreferPlainTcpSends();
  int provided = MPI_THREAD_SINGLE;
  TW_RETURN_IF_ERROR(
      MpiStatus(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init"));
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  if (provided < MPI_THREAD_SERIALIZED) {
    return PeerError("this MPI does not offer MPI_THREAD_SERIALIZED");
  }
  TW_ASSIGN_OR_RETURN(session->place_, FindPlace());
  TW_ASSIGN_OR_RETURN(session->communicator_, MakeMpiCommunicator({.timeout_s = timeout_s}));
  TW_RETURN_IF_ERROR(session->communicator_->Barrier({0, -1, "first agreement"}));
  session->watchdog_.Disarm();
  return session;
}

MpiSession::~MpiSession() { Finalize(); }

void MpiSession::Finalize() {
  if (finalized_) return;
  finalized_ = true;
  int initialized = 0, already = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&already);
  if (!initialized || already) return;
  watchdog_.Arm(timeout_s_ + StaggerSeconds(place_.rank),
                "rank " + std::to_string(place_.rank) +
                    ": the other ranks did not come to the end of the job",
                static_cast<int>(Fault::kPeer));
  communicator_.reset();
  MPI_Finalize();
  watchdog_.Disarm();
}

}  // namespace tw
