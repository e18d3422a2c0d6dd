#pragma once
// Async: a piece of work that can wait for bytes without holding its thread. A C++20 coroutine that
// returns a Status; it reads top to bottom like blocking code:
//
//   Async Both(Communicator& comm, ...) {
//     auto ticket = comm.StartAllGatherV(...);
//     TW_CO_RETURN_IF_ERROR(co_await *ticket);        // the thread does other work meanwhile
//     TW_CO_RETURN_IF_ERROR(co_await Another(...));   // an Async waits for an Async
//     co_return OkStatus();
//   }
//
// An Async starts when it is awaited or driven, runs on that thread until it first waits, and ends
// on it. Whoever drives the outermost one looks at AsyncRun::waiting() and resumes it when that
// ticket has arrived: the lane does so for several at once, RunBlocking for one.
//
// Arguments passed by reference must outlive the Async. Frames come from a list of free ones kept
// by each thread: after the first step nothing is allocated. Thread safety: one thread drives an
// Async from its first step to its end.

#include <coroutine>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

#include "core/base/status.h"

namespace tw {

// How far something is that is under way.
enum class Progress {
  kIdle,   // nothing has moved since the last look
  kMoved,  // bytes have moved, more are to come
  kDone,
};

// Bytes under way; see Communicator.
class Ticket {
 public:
  virtual ~Ticket() = default;
  // Looks once, without blocking. An error (a missed deadline among them) ends the operation; after
  // an error or kDone it is not called again. The spans of the Start call must live until then.
  virtual StatusOr<Progress> Test() = 0;
  // Blocks until done or the deadline; instead of Test, or after kIdle or kMoved.
  virtual Status Wait() = 0;
};

namespace internal {
void* NewFrame(size_t bytes);
void DeleteFrame(void* frame, size_t bytes) noexcept;
}  // namespace internal

class [[nodiscard]] Async {
  struct Child;

 public:
  // Where a chain of Asyncs, the outermost first, has come to.
  struct Chain {
    Ticket* waiting = nullptr;  // null: not suspended
    Status arrival;             // what became of it, set before resuming
    std::coroutine_handle<> innermost;
  };

  struct promise_type {
    Chain* chain = nullptr;
    std::coroutine_handle<> parent;  // null: outermost
    Status result;
    std::exception_ptr thrown;

    Async get_return_object() {
      return Async(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    std::suspend_always initial_suspend() noexcept { return {}; }
    auto final_suspend() noexcept { return ToParent{}; }
    void return_value(Status status) { result = std::move(status); }
    void unhandled_exception() { thrown = std::current_exception(); }

    static void* operator new(size_t bytes) { return internal::NewFrame(bytes); }
    static void operator delete(void* frame, size_t bytes) { internal::DeleteFrame(frame, bytes); }

    // co_await ticket
    auto await_transform(Ticket& ticket) { return Arrival{ticket, {}, nullptr}; }
    Child await_transform(Async&& child);
  };
  using Handle = std::coroutine_handle<promise_type>;

  explicit Async(Handle handle) : handle_(handle) {}
  Async(Async&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Async& operator=(Async&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Async() {
    if (handle_) handle_.destroy();
  }

 private:
  friend class AsyncRun;

  struct ToParent {
    bool await_ready() noexcept { return false; }
    std::coroutine_handle<> await_suspend(Handle self) noexcept {
      const auto parent = self.promise().parent;
      return parent ? parent : std::noop_coroutine();
    }
    void await_resume() noexcept {}
  };

  struct Arrival {
    Ticket& ticket;
    Status status;
    Chain* chain;
    bool await_ready() {
      StatusOr<Progress> progress = ticket.Test();
      if (progress.ok() && *progress != Progress::kDone) return false;
      status = progress.status();
      return true;
    }
    void await_suspend(Handle self) {
      chain = self.promise().chain;
      chain->waiting = &ticket;
      chain->innermost = self;
    }
    Status await_resume() { return chain ? std::move(chain->arrival) : std::move(status); }
  };

  static Status Result(promise_type& promise) {
    if (promise.thrown) std::rethrow_exception(promise.thrown);
    return std::move(promise.result);
  }

  Handle handle_;
};

struct Async::Child {
  Async async;
  bool await_ready() { return false; }
  std::coroutine_handle<> await_suspend(Handle self) {
    promise_type& promise = async.handle_.promise();
    promise.chain = self.promise().chain;
    promise.parent = self;
    return async.handle_;
  }
  Status await_resume() { return Result(async.handle_.promise()); }
};

inline Async::Child Async::promise_type::await_transform(Async&& child) {
  return Child{std::move(child)};
}

// Drives one outermost Async.
class AsyncRun {
 public:
  explicit AsyncRun(Async async)
      : async_(std::move(async)), chain_(std::make_unique<Async::Chain>()) {
    async_.handle_.promise().chain = chain_.get();
    chain_->innermost = async_.handle_;
  }

  bool done() const { return async_.handle_.done(); }
  // Runs until it waits or ends. REQUIRES: not done, and nothing awaited (or see Arrived).
  void Resume() {
    chain_->waiting = nullptr;
    chain_->innermost.resume();
  }
  // What it waits for; null before the first Resume and at the end.
  Ticket* waiting() const { return chain_->waiting; }
  // The ticket it waited for has come to its end: goes on.
  void Arrived(Status status) {
    chain_->arrival = std::move(status);
    Resume();
  }
  // REQUIRES: done(). Rethrows what the Async threw.
  Status TakeResult() { return Async::Result(async_.handle_.promise()); }

 private:
  Async async_;
  std::unique_ptr<Async::Chain> chain_;  // an address that stays when the run is moved
};

// Runs to the end on this thread, blocking wherever it waits.
Status RunBlocking(Async async);

}  // namespace tw

// TW_RETURN_IF_ERROR and TW_ASSIGN_OR_RETURN inside an Async.
#define TW_CO_RETURN_IF_ERROR(expr)                                     \
  do {                                                                  \
    auto&& tw_status = (expr);                                          \
    if (!tw_status.ok()) co_return ::tw::internal::ToStatus(tw_status); \
  } while (0)

#define TW_CO_ASSIGN_OR_RETURN(lhs, expr) \
  TW_CO_ASSIGN_OR_RETURN_IMPL(TW_CONCAT(tw_or_, __LINE__), lhs, expr)
#define TW_CO_ASSIGN_OR_RETURN_IMPL(var, lhs, expr) \
  auto var = (expr);                                \
  if (!var.ok()) co_return var.status();            \
  lhs = std::move(var).value()
