#pragma once
// What an operation has handed to MPI, in memory that goes from one operation to the next.

#include <mpi.h>

#include <memory>
#include <mutex>
#include <vector>

namespace tw {

// The messages of one operation, one entry a request.
struct Posted {
  struct Expected {
    int peer = -1;
    int bytes = -1;  // -1: a send
  };
  std::vector<MPI_Request> requests;
  std::vector<MPI_Status> statuses;
  std::vector<int> done;
  std::vector<Expected> expected;
  std::vector<int> relay_to;

  void Clear() {
    requests.clear();
    expected.clear();
    relay_to.clear();
  }
};

// The memory of messages between one ticket and the next. Outlives its communicator where a ticket
// does. Thread safe.
class PostedPool {
 public:
  std::unique_ptr<Posted> Lend() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Posted>();
    std::unique_ptr<Posted> posted = std::move(free_.back());
    free_.pop_back();
    return posted;
  }
  void HandBack(std::unique_ptr<Posted> posted) {
    posted->Clear();
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(posted));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Posted>> free_;
};

}  // namespace tw
