// Run under mpirun with the name of a fault: makes it happen, prints the error and ends the job as
// the program does. The launcher's exit code and the line are what the test looks at.

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "comm/mpi/mpi_session.h"

namespace tw {
namespace {

// Longer than every deadline here; the job is over before.
void KeepSilent() { std::this_thread::sleep_for(std::chrono::seconds(30)); }

void EndBy(const Status& status, Communicator& comm) {
  std::fprintf(stderr, "tightwire: %s\n", std::string(status.message()).c_str());
  comm.Abort(ExitCode(status));
}

int Main(const std::string& fault) {
  // Before MPI_Init no rank is known but the launcher's.
  const char* launched_as = std::getenv("OMPI_COMM_WORLD_RANK");
  if (fault == "never" && launched_as && std::string(launched_as) == "1") KeepSilent();
  auto session = MpiSession::Init(fault == "late" ? 3 : 1);
  TW_CHECK_OK(session);
  Communicator& comm = (*session)->communicator();
  const int rank = comm.rank();
  std::vector<uint8_t> send(32), recv(32);

  if (fault == "silent") {
    if (rank == 2) KeepSilent();
    EndBy(comm.Barrier({120, 3, "reduce-scatter"}), comm);
  } else if (fault == "elsewhere") {
    // Rank 1 needs nothing from rank 2 at first: the two end up in different operations.
    if (rank == 2) KeepSilent();
    const std::vector<int64_t> none = {0, 0, 0}, from_two = {0, 0, 8};
    if (rank == 0) {
      TW_CHECK_OK(comm.AllToAllV({}, none, {}, none, {1, 0, "first"}));
    } else {
      const MutableByteSpan part = MutableByteSpan(recv).first(8);
      EndBy(comm.AllToAllV({}, none, part, from_two, {1, 0, "first"}), comm);
    }
    EndBy(comm.Barrier({1, 1, "second"}), comm);
  } else if (fault == "late") {
    // Rank 1 joins after half of rank 0's deadline, and answers its call at once.
    if (rank == 2) KeepSilent();
    if (rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(1800));
    EndBy(comm.Barrier({1, -1, "gather"}), comm);
  } else if (fault == "truncated" || fault == "short") {
    const int64_t sent = fault == "short" ? 8 : 32;
    const std::vector<int64_t> to_other = {0, rank == 0 ? sent : 0};
    const std::vector<int64_t> from_other = {rank == 1 ? 16 : 0, 0};
    const Status status =
        comm.AllToAllV(ByteSpan(send).first(static_cast<size_t>(to_other[1])), to_other,
                       MutableByteSpan(recv).first(static_cast<size_t>(from_other[0])), from_other,
                       {5, 0, "exchange"});
    if (rank == 0) KeepSilent();
    std::fprintf(stderr, "rank 1: ");
    EndBy(status, comm);
  } else if (fault == "abort") {
    if (rank == 1) comm.Abort(5);
    KeepSilent();
  } else if (fault == "unfinished") {
    if (rank == 1) KeepSilent();
    (*session)->Finalize();
  }
  return 99;
}

}  // namespace
}  // namespace tw

int main(int argc, char** argv) { return tw::Main(argc > 1 ? argv[1] : ""); }
