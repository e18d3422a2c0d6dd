#include "comm/thread_communicator.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>

#include "comm/timeout_error.h"

namespace tw {
namespace {

enum class Verb { kAllGatherV, kAllToAllV, kBroadcast };

// What one rank brought to an operation.
struct Post {
  bool arrived = false;
  Verb verb = Verb::kAllGatherV;
  ByteSpan send;
  MutableByteSpan recv;
  std::span<const int64_t> send_sizes, recv_sizes;
  int root = 0;
  OpTag tag;
};

// A status that threads may copy: absl's own shares a reference count which the thread sanitizer
// cannot see through, the library not being instrumented.
struct Outcome {
  absl::StatusCode code = absl::StatusCode::kOk;
  Fault fault = Fault::kPeer;
  std::string message;

  Outcome() = default;
  explicit Outcome(const Status& status)
      : code(status.code()), fault(FaultOf(status)), message(status.message()) {}
  bool ok() const { return code == absl::StatusCode::kOk; }
  Status ToStatus() const { return ok() ? OkStatus() : WithFault(Status(code, message), fault); }
};

struct Operation {
  enum class State { kOpen, kMoving, kDone };
  explicit Operation(int n) : posts(static_cast<size_t>(n)) {}
  std::vector<Post> posts;
  int num_arrived = 0;
  State state = State::kOpen;
  Outcome outcome;           // set when done, the same for all ranks
  std::vector<int> missing;  // who had not arrived when a deadline passed
};

std::string RankText(size_t rank) { return "rank " + std::to_string(rank); }

int64_t Sum(std::span<const int64_t> sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
}

// The lengths one rank passed fit each other.
Status CheckOwnSizes(size_t rank, size_t n, const Post& post) {
  const auto fits = [](std::span<const int64_t> sizes, size_t bytes) {
    return std::all_of(sizes.begin(), sizes.end(), [](int64_t s) { return s >= 0; }) &&
           Sum(sizes) == static_cast<int64_t>(bytes);
  };
  bool ok = true;
  if (post.verb != Verb::kBroadcast) {
    ok = post.recv_sizes.size() == n && fits(post.recv_sizes, post.recv.size());
  }
  if (ok && post.verb == Verb::kAllGatherV) {
    ok = post.recv_sizes[rank] == static_cast<int64_t>(post.send.size());
  }
  if (ok && post.verb == Verb::kAllToAllV) {
    ok = post.send_sizes.size() == n && fits(post.send_sizes, post.send.size());
  }
  if (ok && post.verb == Verb::kBroadcast) {
    ok = post.root >= 0 && post.root < static_cast<int>(n);
  }
  if (ok) return OkStatus();
  return BugError(ToString(post.tag) + ": sizes of " + RankText(rank) + " do not fit its buffers");
}

Status CheckSameVerb(const std::vector<Post>& posts) {
  for (size_t r = 1; r < posts.size(); ++r) {
    if (posts[r].verb != posts[0].verb || posts[r].root != posts[0].root ||
        posts[r].tag.step != posts[0].tag.step || posts[r].tag.bucket != posts[0].tag.bucket) {
      return PeerError("rank 0 does " + ToString(posts[0].tag) + " while " + RankText(r) +
                       " does " + ToString(posts[r].tag));
    }
  }
  return OkStatus();
}

Status CopyPart(const OpTag& tag, size_t from_rank, ByteSpan from, size_t to_rank,
                MutableByteSpan to) {
  if (from.size() != to.size()) {
    return PeerError(ToString(tag) + ": " + RankText(from_rank) + " sends " +
                     std::to_string(from.size()) + " bytes, " + RankText(to_rank) + " expects " +
                     std::to_string(to.size()));
  }
  if (!from.empty() && from.data() != to.data()) {
    std::memcpy(to.data(), from.data(), from.size());
  }
  return OkStatus();
}

// Moves all bytes of an operation in which every rank has arrived.
Status Move(const std::vector<Post>& posts) {
  const size_t n = posts.size();
  TW_RETURN_IF_ERROR(CheckSameVerb(posts));
  for (size_t r = 0; r < n; ++r) TW_RETURN_IF_ERROR(CheckOwnSizes(r, n, posts[r]));
  if (posts[0].verb == Verb::kBroadcast) {
    const size_t root = static_cast<size_t>(posts[0].root);
    for (size_t r = 0; r < n; ++r) {
      TW_RETURN_IF_ERROR(CopyPart(posts[0].tag, root, posts[root].recv, r, posts[r].recv));
    }
    return OkStatus();
  }
  std::vector<size_t> send_at(n, 0);  // how far each sender's concatenation has been handed out
  for (size_t to = 0; to < n; ++to) {
    size_t recv_at = 0;
    for (size_t from = 0; from < n; ++from) {
      ByteSpan part = posts[from].send;
      if (posts[0].verb == Verb::kAllToAllV) {
        part = part.subspan(send_at[from], static_cast<size_t>(posts[from].send_sizes[to]));
        send_at[from] += part.size();
      }
      const size_t expected = static_cast<size_t>(posts[to].recv_sizes[from]);
      TW_RETURN_IF_ERROR(
          CopyPart(posts[0].tag, from, part, to, posts[to].recv.subspan(recv_at, expected)));
      recv_at += expected;
    }
  }
  return OkStatus();
}

// Which operation of a rank it is: the bucket, and how many of that bucket came before.
using Place = std::pair<int32_t, uint64_t>;

class Hub {
 public:
  Hub(int n, double timeout_s) : n_(n), timeout_s_(timeout_s) {}

  int n() const { return n_; }

  std::shared_ptr<Operation> Start(int rank, const Place& place, const Post& post) {
    std::unique_lock<std::mutex> lock(mutex_);
    auto& slot = open_[place];
    if (!slot) slot = std::make_shared<Operation>(n_);
    std::shared_ptr<Operation> op = slot;
    op->posts[static_cast<size_t>(rank)] = post;
    op->posts[static_cast<size_t>(rank)].arrived = true;
    const bool complete = ++op->num_arrived == n_;
    if (complete) open_.erase(place);
    if (op->state == Operation::State::kDone) return op;
    if (!broken_.ok()) {
      op->outcome = broken_;
      op->state = Operation::State::kDone;
      changed_.notify_all();
    } else if (complete) {
      op->state = Operation::State::kMoving;
      lock.unlock();
      Outcome outcome(Move(op->posts));
      lock.lock();
      op->outcome = std::move(outcome);
      op->state = Operation::State::kDone;
      changed_.notify_all();
    }
    return op;
  }

  Status Wait(int rank, Operation& op, std::chrono::steady_clock::time_point deadline) {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto done = [&op] { return op.state == Operation::State::kDone; };
    if (!changed_.wait_until(lock, deadline, done)) GiveUp(lock, op);
    return Result(rank, op);
  }

  // As Wait, without blocking. `deadline` is the ticket's.
  StatusOr<Progress> Test(int rank, Operation& op, std::chrono::steady_clock::time_point deadline) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (op.state != Operation::State::kDone) {
      if (std::chrono::steady_clock::now() < deadline) return Progress::kIdle;
      GiveUp(lock, op);
    }
    TW_RETURN_IF_ERROR(Result(rank, op));
    return Progress::kDone;
  }

  double timeout_s() const { return timeout_s_; }

  // The hub of the n ranks that pass `color` to the split number `turn` of each.
  std::shared_ptr<Hub> Part(uint64_t turn, int color, int n) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto& part = parts_[{turn, color}];
    if (!part) part = std::make_shared<Hub>(n, timeout_s_);
    return part;
  }

  // A rank drops its ticket: its buffers may go away, so nobody may touch them any more.
  void Leave(Operation& op) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (op.state != Operation::State::kDone) GiveUp(lock, op);
  }

 private:
  // What `rank` is told about an operation that is done.
  Status Result(int rank, const Operation& op) const {
    const OpTag& tag = op.posts[static_cast<size_t>(rank)].tag;
    if (op.missing.empty()) return op.outcome.ToStatus();
    if (std::find(op.missing.begin(), op.missing.end(), rank) == op.missing.end()) {
      return TimedOut(rank, tag, timeout_s_, op.missing);
    }
    return PeerError("rank " + std::to_string(rank) + ": came too late to " + ToString(tag) +
                     ", the other ranks gave up on it");
  }

  // Ends an operation that not all ranks have joined; one that is moving bytes is let finish.
  void GiveUp(std::unique_lock<std::mutex>& lock, Operation& op) {
    if (op.state == Operation::State::kMoving) {
      changed_.wait(lock, [&op] { return op.state == Operation::State::kDone; });
      return;
    }
    for (int r = 0; r < n_; ++r) {
      if (!op.posts[static_cast<size_t>(r)].arrived) op.missing.push_back(r);
    }
    op.outcome = Outcome(PeerError("an operation before this one was given up"));
    op.state = Operation::State::kDone;
    broken_ = op.outcome;
    changed_.notify_all();
  }

  const int n_;
  const double timeout_s_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Place, std::shared_ptr<Operation>> open_;
  Outcome broken_;
  std::map<std::pair<uint64_t, int>, std::shared_ptr<Hub>> parts_;
};

class ThreadTicket : public Ticket {
 public:
  ThreadTicket(std::shared_ptr<Hub> hub, int rank, std::shared_ptr<Operation> op)
      : hub_(std::move(hub)),
        rank_(rank),
        op_(std::move(op)),
        deadline_(std::chrono::steady_clock::now() +
                  std::chrono::duration_cast<std::chrono::nanoseconds>(
                      std::chrono::duration<double>(hub_->timeout_s()))) {}
  ~ThreadTicket() override {
    if (!done_) hub_->Leave(*op_);
  }
  StatusOr<Progress> Test() override {
    StatusOr<Progress> progress = hub_->Test(rank_, *op_, deadline_);
    done_ = !progress.ok() || *progress == Progress::kDone;
    return progress;
  }
  Status Wait() override {
    done_ = true;
    return hub_->Wait(rank_, *op_, deadline_);
  }

 private:
  std::shared_ptr<Hub> hub_;
  int rank_;
  std::shared_ptr<Operation> op_;
  std::chrono::steady_clock::time_point deadline_;
  bool done_ = false;
};

class ThreadCommunicator : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Hub> hub, int rank) : hub_(std::move(hub)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return hub_->n(); }
  const char* name() const override { return "thread"; }
  int64_t bytes_sent() const override { return bytes_sent_; }

  std::unique_ptr<Ticket> StartAllGatherV(ByteSpan mine, std::span<const int64_t> sizes,
                                          MutableByteSpan all, const OpTag& tag) override {
    return Start(
        {.verb = Verb::kAllGatherV, .send = mine, .recv = all, .recv_sizes = sizes, .tag = tag},
        static_cast<int64_t>(mine.size()) * (size() - 1));
  }
  std::unique_ptr<Ticket> StartAllToAllV(ByteSpan send, std::span<const int64_t> send_sizes,
                                         MutableByteSpan recv, std::span<const int64_t> recv_sizes,
                                         const OpTag& tag) override {
    const int64_t own = send_sizes[static_cast<size_t>(rank_)];
    return Start({.verb = Verb::kAllToAllV,
                  .send = send,
                  .recv = recv,
                  .send_sizes = send_sizes,
                  .recv_sizes = recv_sizes,
                  .tag = tag},
                 static_cast<int64_t>(send.size()) - own);
  }
  std::unique_ptr<Ticket> StartBroadcast(MutableByteSpan bytes, int root,
                                         const OpTag& tag) override {
    return Start({.verb = Verb::kBroadcast, .recv = bytes, .root = root, .tag = tag},
                 rank_ == root ? static_cast<int64_t>(bytes.size()) * (size() - 1) : 0);
  }
  StatusOr<std::unique_ptr<Communicator>> Split(int color) override {
    TW_ASSIGN_OR_RETURN(const std::vector<int64_t> colors, AllGatherInt(color, {0, -1, "split"}));
    const uint64_t turn = next_split_++;
    if (color < 0) return std::unique_ptr<Communicator>();
    const int n = static_cast<int>(std::count(colors.begin(), colors.end(), color));
    const int rank = static_cast<int>(std::count(colors.begin(), colors.begin() + rank_, color));
    return std::make_unique<ThreadCommunicator>(hub_->Part(turn, color, n), rank);
  }
  void Abort(int code) override {
    std::fflush(nullptr);
    _exit(code);
  }

 private:
  std::unique_ptr<Ticket> Start(const Post& post, int64_t bytes) {
    bytes_sent_ += bytes;
    const Place place{post.tag.bucket, next_turn_[post.tag.bucket]++};
    return std::make_unique<ThreadTicket>(hub_, rank_, hub_->Start(rank_, place, post));
  }

  std::shared_ptr<Hub> hub_;
  int rank_;
  uint64_t next_split_ = 0;
  std::map<int32_t, uint64_t> next_turn_;  // by bucket
  std::atomic<int64_t> bytes_sent_ = 0;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> MakeThreadGroup(int n, double timeout_s) {
  TW_CHECK_GE(n, 1);
  TW_CHECK(timeout_s > 0);
  auto hub = std::make_shared<Hub>(n, timeout_s);
  std::vector<std::unique_ptr<Communicator>> group;
  for (int r = 0; r < n; ++r) group.push_back(std::make_unique<ThreadCommunicator>(hub, r));
  return group;
}

}  // namespace tw
