#pragma once
// Status, the macros around it, and the exit code every failure ends in.
//
// Status is for faults of the caller, a file, a peer or the machine; TW_CHECK is for our own bugs:
// it prints file, line and values and ends the process with exit code 70, on which a launcher ends
// the other ranks. Thread safe.

#include <sstream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tw {

using absl::Status;
using absl::StatusOr;
inline Status OkStatus() { return absl::OkStatus(); }

// Who is at fault; the number is the exit code of the program.
enum class Fault : int {
  kConfig = 2,   // usage, a config file or an override
  kData = 3,     // a file or a data set, the disk
  kPeer = 4,     // another rank or the network
  kNumbers = 5,  // diverged, too many non-finite steps
  kBug = 70,     // tightwire itself
};

// A status that carries its fault. The message is one line: what was found, what is allowed.
Status ConfigError(const std::string& message);
Status DataError(const std::string& message);
Status PeerError(const std::string& message);  // code DeadlineExceeded is PeerTimeout's
Status PeerTimeout(const std::string& message);
Status NumbersError(const std::string& message);
Status BugError(const std::string& message);
// A body, frame or file whose bytes cannot be trusted. Peer's fault unless WithFault says
// otherwise.
Status DataLoss(const std::string& message);

Status WithFault(Status status, Fault fault);
// Puts `context + ": "` in front of the message; keeps code and fault. OK stays OK.
Status Annotate(Status status, const std::string& context);
Fault FaultOf(const Status& status);
// 0 for OK, otherwise the fault's number.
int ExitCode(const Status& status);

namespace internal {
// Prints "check failed ..." with the rank set by SetProcessRank and ends the process.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const std::string& values);
inline const Status& ToStatus(const Status& s) { return s; }
template <class T>
const Status& ToStatus(const StatusOr<T>& s) {
  return s.status();
}
template <class A, class B>
std::string TwoValues(const A& a, const B& b) {
  std::ostringstream out;
  out << a << " vs " << b;
  return out.str();
}
}  // namespace internal

// The rank that CHECK failures print; set once by launch/.
void SetProcessRank(int rank);
int ProcessRank();

}  // namespace tw

#define TW_CONCAT_INNER(a, b) a##b
#define TW_CONCAT(a, b) TW_CONCAT_INNER(a, b)

#define TW_RETURN_IF_ERROR(expr)                                     \
  do {                                                               \
    auto&& tw_status = (expr);                                       \
    if (!tw_status.ok()) return ::tw::internal::ToStatus(tw_status); \
  } while (0)

#define TW_ASSIGN_OR_RETURN(lhs, expr) \
  TW_ASSIGN_OR_RETURN_IMPL(TW_CONCAT(tw_or_, __LINE__), lhs, expr)
#define TW_ASSIGN_OR_RETURN_IMPL(var, lhs, expr) \
  auto var = (expr);                             \
  if (!var.ok()) return var.status();            \
  lhs = std::move(var).value()

#define TW_CHECK(condition)                                                       \
  do {                                                                            \
    if (!(condition)) [[unlikely]]                                                \
      ::tw::internal::CheckFailed(__FILE__, __LINE__, #condition, std::string()); \
  } while (0)
#define TW_CHECK_OP(a, op, b)                                            \
  do {                                                                   \
    if (!((a)op(b))) [[unlikely]]                                        \
      ::tw::internal::CheckFailed(__FILE__, __LINE__, #a " " #op " " #b, \
                                  ::tw::internal::TwoValues((a), (b)));  \
  } while (0)
#define TW_CHECK_EQ(a, b) TW_CHECK_OP(a, ==, b)
#define TW_CHECK_LE(a, b) TW_CHECK_OP(a, <=, b)
#define TW_CHECK_GE(a, b) TW_CHECK_OP(a, >=, b)
#define TW_CHECK_OK(expr)                                                    \
  do {                                                                       \
    auto&& tw_check_status = (expr);                                         \
    if (!tw_check_status.ok())                                               \
      ::tw::internal::CheckFailed(                                           \
          __FILE__, __LINE__, #expr,                                         \
          std::string(::tw::internal::ToStatus(tw_check_status).message())); \
  } while (0)
