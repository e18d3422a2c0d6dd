#include "core/base/status.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/cord.h"

namespace tw {
namespace {

constexpr char kFaultUrl[] = "tightwire/fault";
std::atomic<int> process_rank{0};

Status Make(absl::StatusCode code, Fault fault, const std::string& message) {
  return WithFault(Status(code, message), fault);
}

}  // namespace

Status ConfigError(const std::string& m) {
  return Make(absl::StatusCode::kInvalidArgument, Fault::kConfig, m);
}
Status DataError(const std::string& m) {
  return Make(absl::StatusCode::kFailedPrecondition, Fault::kData, m);
}
Status PeerError(const std::string& m) {
  return Make(absl::StatusCode::kUnavailable, Fault::kPeer, m);
}
Status PeerTimeout(const std::string& m) {
  return Make(absl::StatusCode::kDeadlineExceeded, Fault::kPeer, m);
}
Status NumbersError(const std::string& m) {
  return Make(absl::StatusCode::kOutOfRange, Fault::kNumbers, m);
}
Status BugError(const std::string& m) { return Make(absl::StatusCode::kInternal, Fault::kBug, m); }
Status DataLoss(const std::string& m) { return Make(absl::StatusCode::kDataLoss, Fault::kPeer, m); }

Status WithFault(Status status, Fault fault) {
  if (!status.ok()) {
    status.SetPayload(kFaultUrl, absl::Cord(std::to_string(static_cast<int>(fault))));
  }
  return status;
}

Status Annotate(Status status, const std::string& context) {
  if (status.ok()) return status;
  return WithFault(Status(status.code(), context + ": " + std::string(status.message())),
                   FaultOf(status));
}

Fault FaultOf(const Status& status) {
  if (auto payload = status.GetPayload(kFaultUrl)) {
    return static_cast<Fault>(std::atoi(std::string(*payload).c_str()));
  }
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return Fault::kConfig;
    case absl::StatusCode::kNotFound:
      return Fault::kData;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kDataLoss:
      return Fault::kPeer;
    default:
      return Fault::kBug;
  }
}

int ExitCode(const Status& status) { return status.ok() ? 0 : static_cast<int>(FaultOf(status)); }

void SetProcessRank(int rank) { process_rank = rank; }
int ProcessRank() { return process_rank; }

namespace internal {
void CheckFailed(const char* file, int line, const char* condition, const std::string& values) {
  std::fprintf(stderr, "tightwire: rank %d: %s:%d: check failed: %s%s%s%s\n", ProcessRank(), file,
               line, condition, values.empty() ? "" : " (", values.c_str(),
               values.empty() ? "" : ")");
  std::fflush(stderr);
  std::_Exit(static_cast<int>(Fault::kBug));
}
}  // namespace internal

}  // namespace tw
