#include "comm/mpi/roll_call.h"

#include <cstring>

namespace tw {
namespace {

constexpr int kReportTag = 1;

}  // namespace

RollCall::RollCall(MPI_Comm comm, int rank, int size)
    : comm_(comm), rank_(rank), size_(size), last_(static_cast<size_t>(size), Message{}) {}

void RollCall::SendToAll(const Message& message) {
  for (auto it = sent_.begin(); it != sent_.end();) {
    int done = 0;
    MPI_Testall(static_cast<int>(it->requests.size()), it->requests.data(), &done,
                MPI_STATUSES_IGNORE);
    it = done ? sent_.erase(it) : std::next(it);
  }
  Sent& sent = sent_.emplace_back();
  sent.message = message;
  for (int i = 1; i < size_; ++i) {
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Isend(&sent.message, sizeof(Message), MPI_BYTE, (rank_ + i) % size_, kReportTag, comm_,
              &request);
    sent.requests.push_back(request);
  }
}

void RollCall::Report(const OpTag& tag) {
  if (reported_) return;
  reported_ = true;
  Message message{tag.step, tag.bucket, 1, {}};
  std::strncpy(message.what.data(), tag.what, message.what.size() - 1);
  SendToAll(message);
}

void RollCall::Resume() {
  if (!reported_) return;
  reported_ = false;
  SendToAll({});
}

bool RollCall::Listen() {
  for (;;) {
    int found = 0;
    MPI_Status status;
    if (MPI_Iprobe(MPI_ANY_SOURCE, kReportTag, comm_, &found, &status) != MPI_SUCCESS || !found) {
      break;
    }
    Message message;
    if (MPI_Recv(&message, sizeof(message), MPI_BYTE, status.MPI_SOURCE, kReportTag, comm_,
                 MPI_STATUS_IGNORE) != MPI_SUCCESS) {
      break;
    }
    message.what.back() = '\0';
    last_[static_cast<size_t>(status.MPI_SOURCE)] = message;
  }
  if (reported_) return false;
  for (const Message& message : last_) {
    if (message.waiting) return true;
  }
  return false;
}

std::vector<int> RollCall::Missing() const {
  std::vector<int> missing;
  for (int r = 0; r < size_; ++r) {
    if (r != rank_ && !last_[static_cast<size_t>(r)].waiting) missing.push_back(r);
  }
  return missing;
}

std::string RollCall::Elsewhere(const OpTag& tag) const {
  std::string out;
  for (int r = 0; r < size_; ++r) {
    const Message& message = last_[static_cast<size_t>(r)];
    if (r == rank_ || !message.waiting) continue;
    const OpTag theirs{message.step, message.bucket, message.what.data()};
    if (ToString(theirs) == ToString(tag)) continue;
    out += "; rank " + std::to_string(r) + " waits in " + ToString(theirs);
  }
  return out;
}

}  // namespace tw
