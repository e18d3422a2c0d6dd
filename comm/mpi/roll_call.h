#pragma once
// RollCall: who is still there? A rank that has waited for half its deadline tells all others what
// it waits for, on a communicator of its own; a rank that hears this while it waits too answers
// with its own report at once. When the deadline passes, whoever has not reported is missing.
// A rank that gets what it waited for takes its report back.
//
// Cheap: nothing is sent unless somebody waits for half a deadline. Thread safety: the lane's.

#include <mpi.h>

#include <array>
#include <cstdint>
#include <list>
#include <string>
#include <vector>

#include "core/api/communicator.h"

namespace tw {

class RollCall {
 public:
  // `comm` is a duplicate of its own, freed by the owner.
  RollCall(MPI_Comm comm, int rank, int size);

  // Sends this rank's report (once a wait) to all others.
  void Report(const OpTag& tag);
  // Takes in what others have sent. True when somebody waits and this rank has not reported yet.
  bool Listen();
  // This rank's wait is over: takes a sent report back.
  void Resume();

  // Ranks that are not waiting, as far as was heard.
  std::vector<int> Missing() const;
  // "; rank 1 waits in gather of bucket 2 in step 119" for every rank that waits elsewhere than
  // in `tag`, or "".
  std::string Elsewhere(const OpTag& tag) const;

 private:
  struct Message {
    uint64_t step;
    int32_t bucket;
    int32_t waiting;  // 0: takes the last report back
    std::array<char, 32> what;
  };
  struct Sent {  // lives until its sends are done
    Message message;
    std::vector<MPI_Request> requests;
  };

  void SendToAll(const Message& message);

  MPI_Comm comm_;
  int rank_, size_;
  bool reported_ = false;
  std::vector<Message> last_;  // by rank
  std::list<Sent> sent_;
};

}  // namespace tw
