#include "comm/mpi/mpi_communicator.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <vector>

#include "comm/mpi/mpi_error.h"
#include "comm/mpi/posted.h"
#include "comm/mpi/roll_call.h"
#include "comm/parts.h"
#include "comm/start_order.h"
#include "comm/timeout_error.h"
#include "comm/wait_by_tests.h"
#include "core/api/async.h"
#include "core/base/clock.h"

namespace tw {
namespace {

// Parts travel in pieces, so that their completion shows that bytes flow: at least this long, and
// at most so many a part.
constexpr size_t kPieceBytes = size_t{256} << 10;
constexpr size_t kMaxPieces = 64;
// How often a waiting rank looks whether others call the roll.
constexpr double kListenMs = 20;
// MPI promises tags up to 32767: so many channels (buckets), and operations of one at a time.
constexpr uint32_t kNumChannels = 250;
constexpr uint32_t kTagsPerChannel = 128;
// Abort() does not wait longer than this for MPI_Abort to end the process.
constexpr unsigned kAbortSeconds = 5;

class MpiCommunicator;

// One operation. Its memory is that of earlier ones: after the first steps nothing is allocated.
class MpiTicket : public Ticket {
 public:
  MpiTicket(MpiCommunicator* owner, std::shared_ptr<PostedPool> pool, const OpTag& tag, int mpi_tag)
      : owner_(owner),
        tag_(tag),
        mpi_tag_(mpi_tag),
        start_ms_(NowMs()),
        next_listen_ms_(start_ms_),
        pool_(std::move(pool)),
        posted_(pool_->Lend()) {}
  ~MpiTicket() override {
    if (turn_) turn_->ticket = nullptr;
    pool_->HandBack(std::move(posted_));
  }
  MpiTicket(const MpiTicket&) = delete;
  MpiTicket& operator=(const MpiTicket&) = delete;
  static void* operator new(size_t bytes) { return internal::NewFrame(bytes); }
  static void operator delete(void* ticket, size_t bytes) { internal::DeleteFrame(ticket, bytes); }

  void Send(ByteSpan bytes, int to);
  void Receive(MutableByteSpan bytes, int from);
  // Sends `bytes` to each of `children` as soon as everything posted so far has arrived.
  void Relay(ByteSpan bytes, int child) {
    relay_bytes_ = bytes;
    posted_->relay_to.push_back(child);
  }
  // Sums `numbers` by MPI when it is their turn: MPI matches all-reduces by their order.
  void SumInTurn(MutableByteSpan numbers, DType type);
  // Its turn has come.
  void PostSum();
  StatusOr<Progress> Test() override;
  Status Wait() override;

  // Of a sum that waits; null when its ticket has gone.
  struct Turn {
    MpiTicket* ticket = nullptr;
  };

 private:
  // Tests all requests; how many have completed since the last call.
  StatusOr<size_t> CountDone();
  // Takes part in the roll call; an error when the deadline has passed.
  Status Listen();
  Status CheckDone(const Posted::Expected& expected, const MPI_Status& status, bool failed) const;
  void Note(int code, int peer, int bytes);
  size_t PieceBytes(size_t bytes) const;

  MpiCommunicator* owner_;
  OpTag tag_;
  int mpi_tag_;
  double start_ms_, next_listen_ms_;
  Status start_status_;
  size_t num_done_ = 0;
  std::shared_ptr<PostedPool> pool_;
  std::unique_ptr<Posted> posted_;
  ByteSpan relay_bytes_;
  std::shared_ptr<Turn> turn_;  // of a sum that has not been posted
  MutableByteSpan numbers_;
  DType type_ = DType::kF32;
};

// MPI's own all-reduce, on a communicator of its own, and the order that all ranks start it in.
class OwnSums {
 public:
  using Order = StartOrder<std::shared_ptr<MpiTicket::Turn>>;

  OwnSums(MPI_Comm comm, std::unique_ptr<Communicator> wire)
      : comm_(comm), order_(std::move(wire), [](const std::shared_ptr<MpiTicket::Turn>& turn) {
          if (turn->ticket) turn->ticket->PostSum();
        }) {}
  ~OwnSums() { MPI_Comm_free(&comm_); }
  OwnSums(const OwnSums&) = delete;
  OwnSums& operator=(const OwnSums&) = delete;

  MPI_Comm comm() const { return comm_; }
  Order& order() { return order_; }

 private:
  MPI_Comm comm_;
  Order order_;
};

// The roll call over all ranks, on a communicator of its own: shared by what was split off, where a
// rank that is waited for may wait elsewhere itself.
class SharedRollCall {
 public:
  SharedRollCall(MPI_Comm comm, int rank, int size) : comm_(comm), roll_call_(comm, rank, size) {}
  ~SharedRollCall() {
    roll_call_.Listen();  // nothing unreceived is left behind for MPI_Finalize
    MPI_Comm_free(&comm_);
  }
  SharedRollCall(const SharedRollCall&) = delete;
  SharedRollCall& operator=(const SharedRollCall&) = delete;
  RollCall& operator*() { return roll_call_; }

 private:
  MPI_Comm comm_;
  RollCall roll_call_;
};

class MpiCommunicator : public Communicator {
 public:
  // world_ranks: what each rank is called in errors.
  MpiCommunicator(const MpiCommunicatorOptions& options, MPI_Comm data,
                  std::shared_ptr<SharedRollCall> roll_call, int rank, std::vector<int> world_ranks)
      : options_(options),
        data_(data),
        rank_(rank),
        size_(static_cast<int>(world_ranks.size())),
        world_ranks_(std::move(world_ranks)),
        roll_call_(std::move(roll_call)) {}
  ~MpiCommunicator() override { MPI_Comm_free(&data_); }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const char* name() const override { return "mpi"; }
  int64_t bytes_sent() const override { return bytes_sent_; }

  std::unique_ptr<Ticket> StartAllGatherV(ByteSpan mine, std::span<const int64_t> sizes,
                                          MutableByteSpan all, const OpTag& tag) override {
    TW_CHECK_EQ(static_cast<int>(sizes.size()), size_);
    auto ticket = NewTicket(tag);
    const std::vector<int64_t>& begins = BeginsOf(sizes, &begins_[0]);
    TW_CHECK_EQ(begins.back(), static_cast<int64_t>(all.size()));
    const auto part = [&](int r) { return Part(all, begins, r); };
    TW_CHECK_EQ(mine.size(), part(rank_).size());
    for (int i = 1; i < size_; ++i) {
      const int from = (rank_ + size_ - i) % size_;
      ticket->Receive(part(from), from);
    }
    for (int i = 1; i < size_; ++i) ticket->Send(mine, (rank_ + i) % size_);
    CopyOwn(mine, part(rank_));
    return ticket;
  }

  std::unique_ptr<Ticket> StartAllToAllV(ByteSpan send, std::span<const int64_t> send_sizes,
                                         MutableByteSpan recv, std::span<const int64_t> recv_sizes,
                                         const OpTag& tag) override {
    TW_CHECK_EQ(static_cast<int>(send_sizes.size()), size_);
    TW_CHECK_EQ(static_cast<int>(recv_sizes.size()), size_);
    auto ticket = NewTicket(tag);
    const std::vector<int64_t>& send_begins = BeginsOf(send_sizes, &begins_[0]);
    const std::vector<int64_t>& recv_begins = BeginsOf(recv_sizes, &begins_[1]);
    TW_CHECK_EQ(send_begins.back(), static_cast<int64_t>(send.size()));
    TW_CHECK_EQ(recv_begins.back(), static_cast<int64_t>(recv.size()));
    for (int i = 1; i < size_; ++i) {
      const int from = (rank_ + size_ - i) % size_;
      ticket->Receive(Part(recv, recv_begins, from), from);
    }
    for (int i = 1; i < size_; ++i) {
      const int to = (rank_ + i) % size_;
      ticket->Send(Part(send, send_begins, to), to);
    }
    TW_CHECK_EQ(Part(send, send_begins, rank_).size(), Part(recv, recv_begins, rank_).size());
    CopyOwn(Part(send, send_begins, rank_), Part(recv, recv_begins, rank_));
    return ticket;
  }

  std::unique_ptr<Ticket> StartBroadcast(MutableByteSpan bytes, int root,
                                         const OpTag& tag) override {
    auto ticket = NewTicket(tag);
    // Ranks counted from the root: v gets from v without its lowest set bit and passes on to v + b
    // for every power of two b below that bit.
    const int v = (rank_ - root + size_) % size_;
    int bit = 1;
    while (bit < size_ && !(v & bit)) bit <<= 1;
    if (v > 0) ticket->Receive(bytes, (v - bit + root) % size_);
    for (int b = bit >> 1; b > 0; b >>= 1) {
      if (v + b >= size_) continue;
      const int child = (v + b + root) % size_;
      v == 0 ? ticket->Send(bytes, child) : ticket->Relay(bytes, child);
    }
    return ticket;
  }

  std::unique_ptr<Ticket> StartOwnSum(MutableByteSpan numbers, DType type,
                                      const OpTag& tag) override {
    TW_CHECK(type == DType::kF32 || type == DType::kF64);
    auto ticket = NewTicket(tag);
    if (size_ > 1 && !numbers.empty()) ticket->SumInTurn(numbers, type);
    return ticket;
  }

  StatusOr<std::unique_ptr<Communicator>> Split(int color) override {
    const OpTag tag{0, -1, "split"};
    TW_RETURN_IF_ERROR(Barrier(tag));  // has a deadline, which MPI's own verb has not
    MPI_Comm part = MPI_COMM_NULL;
    TW_RETURN_IF_ERROR(MpiStatus(
        MPI_Comm_split(data_, color < 0 ? MPI_UNDEFINED : color, rank_, &part), ToString(tag)));
    if (part == MPI_COMM_NULL) return std::unique_ptr<Communicator>();
    MPI_Comm_set_errhandler(part, MPI_ERRORS_RETURN);
    int rank = 0, size = 1;
    MPI_Comm_rank(part, &rank);
    MPI_Comm_size(part, &size);
    std::vector<int> names(static_cast<size_t>(size));
    const int own = WorldRank(rank_);
    TW_RETURN_IF_ERROR(
        MpiStatus(MPI_Allgather(&own, 1, MPI_INT, names.data(), 1, MPI_INT, part), ToString(tag)));
    return std::make_unique<MpiCommunicator>(options_, part, roll_call_, rank, std::move(names));
  }

  void Abort(int code) override {
    std::fflush(nullptr);
    std::thread([code] {
      sleep(kAbortSeconds);
      _exit(code);
    }).detach();
    MPI_Abort(MPI_COMM_WORLD, code);
    _exit(code);
  }

  const MpiCommunicatorOptions& options() const { return options_; }
  MPI_Comm data() const { return data_; }
  RollCall& roll_call() { return **roll_call_; }
  int WorldRank(int rank) const { return world_ranks_[static_cast<size_t>(rank)]; }
  void CountSent(int64_t bytes) { bytes_sent_ += bytes; }
  // Made by the first sum, on all ranks together.
  StatusOr<OwnSums*> Sums() {
    if (own_sums_) return own_sums_.get();
    const OpTag tag{0, -1, "MPI's own sums"};
    TW_RETURN_IF_ERROR(Barrier(tag));  // has a deadline, which MPI's own verb has not
    MPI_Comm comms[2];
    for (MPI_Comm& comm : comms) {
      TW_RETURN_IF_ERROR(MpiStatus(MPI_Comm_dup(data_, &comm), ToString(tag)));
      MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    }
    own_sums_ = std::make_unique<OwnSums>(
        comms[0], std::make_unique<MpiCommunicator>(options_, comms[1], roll_call_, rank_,
                                                    std::vector<int>(world_ranks_)));
    return own_sums_.get();
  }

 private:
  std::unique_ptr<MpiTicket> NewTicket(const OpTag& tag) {
    const uint32_t channel = static_cast<uint32_t>(tag.bucket + 1) % kNumChannels;
    const uint32_t turn = next_turn_[channel]++ % kTagsPerChannel;
    return std::make_unique<MpiTicket>(this, pool_, tag,
                                       static_cast<int>(channel * kTagsPerChannel + turn));
  }
  static void CopyOwn(ByteSpan from, MutableByteSpan to) {
    if (!from.empty() && from.data() != to.data()) {
      std::memcpy(to.data(), from.data(), from.size());
    }
  }

  const MpiCommunicatorOptions options_;
  MPI_Comm data_;
  const int rank_, size_;
  const std::vector<int> world_ranks_;
  const std::shared_ptr<SharedRollCall> roll_call_;
  std::array<uint32_t, kNumChannels> next_turn_{};
  const std::shared_ptr<PostedPool> pool_ = std::make_shared<PostedPool>();
  std::array<std::vector<int64_t>, 2> begins_;  // of one call's parts
  std::unique_ptr<OwnSums> own_sums_;
  std::atomic<int64_t> bytes_sent_ = 0;
};

void MpiTicket::Note(int code, int peer, int bytes) {
  if (code != MPI_SUCCESS && start_status_.ok()) {
    start_status_ =
        MpiStatus(code, ToString(tag_) + " with rank " + std::to_string(owner_->WorldRank(peer)));
  }
  posted_->expected.push_back({peer, bytes});
}

size_t MpiTicket::PieceBytes(size_t bytes) const {
  const size_t limit = static_cast<size_t>(owner_->options().max_message_bytes);
  return std::min(limit, std::max(kPieceBytes, (bytes + kMaxPieces - 1) / kMaxPieces));
}

void MpiTicket::Send(ByteSpan bytes, int to) {
  owner_->CountSent(static_cast<int64_t>(bytes.size()));
  const size_t piece = PieceBytes(bytes.size());
  while (!bytes.empty()) {
    const size_t length = std::min(piece, bytes.size());
    posted_->requests.push_back(MPI_REQUEST_NULL);
    Note(MPI_Isend(bytes.data(), static_cast<int>(length), MPI_BYTE, to, mpi_tag_, owner_->data(),
                   &posted_->requests.back()),
         to, -1);
    bytes = bytes.subspan(length);
  }
}

void MpiTicket::Receive(MutableByteSpan bytes, int from) {
  const size_t piece = PieceBytes(bytes.size());
  while (!bytes.empty()) {
    const size_t length = std::min(piece, bytes.size());
    posted_->requests.push_back(MPI_REQUEST_NULL);
    Note(MPI_Irecv(bytes.data(), static_cast<int>(length), MPI_BYTE, from, mpi_tag_, owner_->data(),
                   &posted_->requests.back()),
         from, static_cast<int>(length));
    bytes = bytes.subspan(length);
  }
}

void MpiTicket::SumInTurn(MutableByteSpan numbers, DType type) {
  const StatusOr<OwnSums*> sums = owner_->Sums();
  if (!sums.ok()) {
    start_status_ = sums.status();
    return;
  }
  numbers_ = numbers;
  type_ = type;
  turn_ = std::make_shared<Turn>(Turn{this});
  (*sums)->order().Add(tag_.bucket, turn_);
}

void MpiTicket::PostSum() {
  turn_.reset();
  // What a ring sends; MPI does not tell.
  const int64_t n = owner_->size(), bytes = static_cast<int64_t>(numbers_.size());
  owner_->CountSent(2 * bytes * (n - 1) / n);
  const size_t element = static_cast<size_t>(DTypeBytes(type_));
  const size_t limit = static_cast<size_t>(owner_->options().max_message_bytes);
  const size_t most = std::max(element, limit / element * element);
  for (MutableByteSpan rest = numbers_; !rest.empty();) {
    const MutableByteSpan part = rest.first(std::min(most, rest.size()));
    rest = rest.subspan(part.size());
    posted_->requests.push_back(MPI_REQUEST_NULL);
    Note(MPI_Iallreduce(MPI_IN_PLACE, part.data(), static_cast<int>(part.size() / element),
                        type_ == DType::kF32 ? MPI_FLOAT : MPI_DOUBLE, MPI_SUM,
                        (*owner_->Sums())->comm(), &posted_->requests.back()),
         owner_->rank(), -1);
  }
}

Status MpiTicket::CheckDone(const Posted::Expected& expected, const MPI_Status& status,
                            bool failed) const {
  if (failed && status.MPI_ERROR != MPI_SUCCESS) {
    return MpiStatus(status.MPI_ERROR, ToString(tag_) + " with rank " +
                                           std::to_string(owner_->WorldRank(expected.peer)));
  }
  if (expected.bytes < 0) return OkStatus();
  int received = 0;
  MPI_Get_count(&status, MPI_BYTE, &received);
  if (received == expected.bytes) return OkStatus();
  return PeerError(ToString(tag_) + ": rank " + std::to_string(owner_->WorldRank(expected.peer)) +
                   " sent " + std::to_string(received) + " bytes, expected " +
                   std::to_string(expected.bytes));
}

StatusOr<size_t> MpiTicket::CountDone() {
  posted_->statuses.resize(posted_->requests.size());
  posted_->done.resize(posted_->requests.size());
  int count = 0;
  const int code =
      MPI_Testsome(static_cast<int>(posted_->requests.size()), posted_->requests.data(), &count,
                   posted_->done.data(), posted_->statuses.data());
  const bool failed = code == MPI_ERR_IN_STATUS;
  if (!failed && code != MPI_SUCCESS) return MpiStatus(code, ToString(tag_));
  for (int i = 0; i < count; ++i) {
    const size_t r = static_cast<size_t>(posted_->done[static_cast<size_t>(i)]);
    TW_RETURN_IF_ERROR(
        CheckDone(posted_->expected[r], posted_->statuses[static_cast<size_t>(i)], failed));
  }
  return count > 0 ? static_cast<size_t>(count) : 0;  // MPI_UNDEFINED is negative
}

Status MpiTicket::Listen() {
  const double timeout_s = owner_->options().timeout_s;
  const double now = NowMs(), listen_ms = std::min(kListenMs, timeout_s * 100);
  if (next_listen_ms_ == start_ms_) next_listen_ms_ += listen_ms;
  if (now < next_listen_ms_) return OkStatus();
  next_listen_ms_ = now + listen_ms;
  RollCall& roll_call = owner_->roll_call();
  const bool called = roll_call.Listen();
  if (called || now >= start_ms_ + timeout_s * 500) roll_call.Report(tag_);
  if (now < start_ms_ + timeout_s * 1e3) return OkStatus();
  const Status late =
      TimedOut(owner_->WorldRank(owner_->rank()), tag_, timeout_s, roll_call.Missing());
  return PeerTimeout(std::string(late.message()) + roll_call.Elsewhere(tag_));
}

StatusOr<Progress> MpiTicket::Test() {
  TW_RETURN_IF_ERROR(start_status_);
  if (!numbers_.empty()) {  // a sum: on the first rank, too, whose announcements have to leave
    TW_RETURN_IF_ERROR((*owner_->Sums())->order().Poll());
    TW_RETURN_IF_ERROR(start_status_);
  }
  if (turn_) {
    TW_RETURN_IF_ERROR(Listen());
    return Progress::kIdle;
  }
  if (num_done_ < posted_->requests.size()) {
    TW_ASSIGN_OR_RETURN(const size_t count, CountDone());
    num_done_ += count;
    if (num_done_ < posted_->requests.size()) {
      TW_RETURN_IF_ERROR(Listen());
      return count > 0 ? Progress::kMoved : Progress::kIdle;
    }
    owner_->roll_call().Resume();
  }
  if (posted_->relay_to.empty()) return Progress::kDone;
  posted_->requests.clear();
  posted_->expected.clear();
  num_done_ = 0;
  for (const int child : posted_->relay_to) Send(relay_bytes_, child);
  posted_->relay_to.clear();
  return Test();
}

Status MpiTicket::Wait() { return WaitByTests(*this); }

}  // namespace

StatusOr<std::unique_ptr<Communicator>> MakeMpiCommunicator(const MpiCommunicatorOptions& options) {
  TW_CHECK(options.timeout_s > 0 && options.max_message_bytes > 0 &&
           options.max_message_bytes <= int64_t{1} << 30);
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm comms[2];
  for (MPI_Comm& comm : comms) {
    TW_RETURN_IF_ERROR(
        MpiStatus(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "duplicating the communicator"));
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
  }
  std::vector<int> names(static_cast<size_t>(size));
  std::iota(names.begin(), names.end(), 0);
  return std::make_unique<MpiCommunicator>(options, comms[0],
                                           std::make_shared<SharedRollCall>(comms[1], rank, size),
                                           rank, std::move(names));
}

}  // namespace tw
