#include "comm/nccl/nccl_communicator.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <numeric>
#include <vector>

#include "comm/nccl/nccl_engine.h"
#include "comm/parts.h"
#include "comm/start_order.h"
#include "comm/timeout_error.h"
#include "comm/wait_by_tests.h"
#include "core/base/clock.h"

namespace tw {
namespace {

using Order = StartOrder<NcclOperation*>;

// What the tickets of a communicator share; they may outlive it.
struct Shared {
  std::shared_ptr<NcclEngine> engine;
  std::unique_ptr<Order> order;
};

class NcclTicket : public Ticket {
 public:
  NcclTicket(std::shared_ptr<Shared> shared, const OpTag& tag) : shared_(std::move(shared)) {
    operation.tag = tag;
  }
  ~NcclTicket() override { shared_->engine->Forget(operation); }

  void Send(ByteSpan bytes, int peer) {
    if (bytes.empty()) return;
    operation.parts.push_back({const_cast<uint8_t*>(bytes.data()), bytes.size(), peer, true});
  }
  void Receive(MutableByteSpan bytes, int peer) {
    if (bytes.empty()) return;
    operation.parts.push_back({bytes.data(), bytes.size(), peer, false});
  }
  // All of it is known. One byte goes to and comes from every rank of `control`.
  void Start(Communicator& control) {
    status_ = shared_->engine->Prepare(operation);
    if (!status_.ok()) return;
    if (control.size() > 1) {
      const size_t n = static_cast<size_t>(control.size());
      ones_.assign(n, 1);
      ones_[static_cast<size_t>(control.rank())] = 0;
      bytes_.assign(2 * (n - 1), 0);
      const MutableByteSpan bytes(bytes_);
      witness_ = control.StartAllToAllV(bytes.first(n - 1), ones_, bytes.last(n - 1), ones_,
                                        operation.tag);
    }
    shared_->order->Add(operation.tag.bucket, &operation);
  }

  StatusOr<Progress> Test() override {
    NcclEngine& engine = *shared_->engine;
    TW_RETURN_IF_ERROR(status_);
    TW_RETURN_IF_ERROR(engine.Usable(operation.tag));
    TW_ASSIGN_OR_RETURN(const bool all_came, TestWitness());
    if (const Status order = shared_->order->Poll(); !order.ok()) {
      return engine.Break(Annotate(order, ToString(operation.tag)));
    }
    TW_ASSIGN_OR_RETURN(const Progress progress, engine.Look(operation));
    if (progress == Progress::kDone) return all_came ? Progress::kDone : Progress::kIdle;
    // As long as somebody has not come it is the witness whose deadline tells who.
    const double timeout_s = engine.options().timeout_s;
    if (all_came && NowMs() > start_ms_ + timeout_s * 1e3) {
      return engine.Break(TimedOut(engine.rank(), operation.tag, timeout_s, {}));
    }
    return progress;
  }

  Status Wait() override { return WaitByTests(*this); }

  NcclOperation operation;

 private:
  // Whether all ranks have started this verb.
  StatusOr<bool> TestWitness() {
    if (!witness_) return true;
    const auto progress = witness_->Test();
    if (!progress.ok()) {
      witness_.reset();
      return shared_->engine->Break(progress.status());
    }
    if (*progress == Progress::kDone) witness_.reset();
    return *progress == Progress::kDone;
  }

  const std::shared_ptr<Shared> shared_;
  const double start_ms_ = NowMs();
  Status status_;
  std::vector<int64_t> ones_;   // by rank; own part nothing
  std::vector<uint8_t> bytes_;  // sent, then received
  std::unique_ptr<Ticket> witness_;
};

class NcclCommunicator : public Communicator {
 public:
  // members: engine ranks of the control communicator's ranks. `owned` is `control` or null.
  NcclCommunicator(std::shared_ptr<NcclEngine> engine, std::vector<int> members, bool whole,
                   Communicator* control, std::unique_ptr<Communicator> owned,
                   std::unique_ptr<Communicator> order_wire)
      : owned_(std::move(owned)),
        control_(control),
        members_(std::move(members)),
        whole_(whole),
        shared_(std::make_shared<Shared>()) {
    NcclEngine* const to = engine.get();
    shared_->engine = std::move(engine);
    shared_->order = std::make_unique<Order>(std::move(order_wire),
                                             [to](NcclOperation* next) { to->Enqueue(next); });
  }

  int rank() const override { return control_->rank(); }
  int size() const override { return control_->size(); }
  const char* name() const override { return whole_ ? "nccl" : "part of nccl"; }
  Communicator& control() override { return *control_; }
  // What control() and the announcements sent is in it: it left this rank, too.
  int64_t bytes_sent() const override {
    return bytes_sent_ + control_->bytes_sent() + shared_->order->bytes_sent();
  }

  std::unique_ptr<Ticket> StartAllGatherV(ByteSpan mine, std::span<const int64_t> sizes,
                                          MutableByteSpan all, const OpTag& tag) override {
    const int n = size(), me = rank();
    TW_CHECK_EQ(static_cast<int>(sizes.size()), n);
    const std::vector<int64_t>& begins = BeginsOf(sizes, &begins_[0]);
    TW_CHECK_EQ(begins.back(), static_cast<int64_t>(all.size()));
    TW_CHECK_EQ(mine.size(), Part(all, begins, me).size());
    auto ticket = std::make_unique<NcclTicket>(shared_, tag);
    NcclOperation& operation = ticket->operation;
    operation.from = mine;
    const bool equal = std::all_of(sizes.begin(), sizes.end(),
                                   [&](int64_t size) { return size == sizes.front(); });
    if (whole_ && n > 1 && equal && !mine.empty()) {
      operation.form = NcclOperation::Form::kAllGather;
      operation.to = all;
    } else {
      operation.to = Part(all, begins, me);
      for (int i = 1; i < n; ++i) {
        const int to = (me + i) % n, from = (me + n - i) % n;
        ticket->Send(mine, members_[static_cast<size_t>(to)]);
        ticket->Receive(Part(all, begins, from), members_[static_cast<size_t>(from)]);
      }
    }
    bytes_sent_ += static_cast<int64_t>(mine.size()) * (n - 1);
    ticket->Start(*control_);
    return ticket;
  }

  std::unique_ptr<Ticket> StartAllToAllV(ByteSpan send, std::span<const int64_t> send_sizes,
                                         MutableByteSpan recv, std::span<const int64_t> recv_sizes,
                                         const OpTag& tag) override {
    const int n = size(), me = rank();
    TW_CHECK_EQ(static_cast<int>(send_sizes.size()), n);
    TW_CHECK_EQ(static_cast<int>(recv_sizes.size()), n);
    const std::vector<int64_t>& send_begins = BeginsOf(send_sizes, &begins_[0]);
    const std::vector<int64_t>& recv_begins = BeginsOf(recv_sizes, &begins_[1]);
    TW_CHECK_EQ(send_begins.back(), static_cast<int64_t>(send.size()));
    TW_CHECK_EQ(recv_begins.back(), static_cast<int64_t>(recv.size()));
    auto ticket = std::make_unique<NcclTicket>(shared_, tag);
    ticket->operation.from = Part(send, send_begins, me);
    ticket->operation.to = Part(recv, recv_begins, me);
    TW_CHECK_EQ(ticket->operation.from.size(), ticket->operation.to.size());
    for (int i = 1; i < n; ++i) {
      const int to = (me + i) % n, from = (me + n - i) % n;
      ticket->Send(Part(send, send_begins, to), members_[static_cast<size_t>(to)]);
      ticket->Receive(Part(recv, recv_begins, from), members_[static_cast<size_t>(from)]);
    }
    bytes_sent_ += static_cast<int64_t>(send.size() - ticket->operation.from.size());
    ticket->Start(*control_);
    return ticket;
  }

  std::unique_ptr<Ticket> StartBroadcast(MutableByteSpan bytes, int root,
                                         const OpTag& tag) override {
    const int n = size(), me = rank();
    TW_CHECK(root >= 0 && root < n);
    auto ticket = std::make_unique<NcclTicket>(shared_, tag);
    if (whole_ && n > 1 && !bytes.empty()) {
      ticket->operation.form = NcclOperation::Form::kBroadcast;
      ticket->operation.to = bytes;
      ticket->operation.root = root;
    } else if (me == root) {
      for (int i = 1; i < n; ++i) {
        ticket->Send(bytes, members_[static_cast<size_t>((me + i) % n)]);
      }
    } else {
      ticket->Receive(bytes, members_[static_cast<size_t>(root)]);
    }
    if (me == root) bytes_sent_ += static_cast<int64_t>(bytes.size()) * (n - 1);
    ticket->Start(*control_);
    return ticket;
  }

  std::unique_ptr<Ticket> StartOwnSum(MutableByteSpan numbers, DType type,
                                      const OpTag& tag) override {
    TW_CHECK(type == DType::kF32 || type == DType::kF64);
    const int n = size();
    if (n > 1 && !whole_) return nullptr;
    auto ticket = std::make_unique<NcclTicket>(shared_, tag);
    if (n > 1 && !numbers.empty()) {
      ticket->operation.form = NcclOperation::Form::kSum;
      ticket->operation.to = numbers;
      ticket->operation.type = type == DType::kF32 ? ncclFloat32 : ncclFloat64;
      // What a ring sends; NCCL does not tell.
      bytes_sent_ += 2 * static_cast<int64_t>(numbers.size()) * (n - 1) / n;
    }
    ticket->Start(*control_);
    return ticket;
  }

  StatusOr<std::unique_ptr<Communicator>> Split(int color) override {
    TW_ASSIGN_OR_RETURN(auto part, control_->Split(color));
    if (!part) return std::unique_ptr<Communicator>();
    TW_ASSIGN_OR_RETURN(const std::vector<int64_t> names,
                        part->AllGatherInt(shared_->engine->rank(), {0, -1, "split"}));
    std::unique_ptr<Communicator> wire;
    if (!shared_->engine->options().same_order) {
      TW_ASSIGN_OR_RETURN(wire, part->Split(0));
    }
    Communicator* const control = part.get();
    return std::make_unique<NcclCommunicator>(
        shared_->engine, std::vector<int>(names.begin(), names.end()),
        /*whole=*/false, control, std::move(part), std::move(wire));
  }

  void Abort(int code) override { control_->Abort(code); }

 private:
  const std::unique_ptr<Communicator> owned_;  // goes last: the announcements' was split from it
  Communicator* const control_;
  const std::vector<int> members_;
  const bool whole_;  // NCCL's own collectives are for all its ranks
  const std::shared_ptr<Shared> shared_;
  std::array<std::vector<int64_t>, 2> begins_;  // of one call's parts
  std::atomic<int64_t> bytes_sent_ = 0;
};

}  // namespace

StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(const NcclOptions& options,
                                                             Communicator& control) {
  TW_ASSIGN_OR_RETURN(auto engine, NcclEngine::Create(options, control));
  std::unique_ptr<Communicator> wire;
  if (!options.same_order) {
    TW_ASSIGN_OR_RETURN(wire, control.Split(0));
  }
  std::vector<int> members(static_cast<size_t>(control.size()));
  std::iota(members.begin(), members.end(), 0);
  return std::make_unique<NcclCommunicator>(std::move(engine), std::move(members), /*whole=*/true,
                                            &control, nullptr, std::move(wire));
}

}  // namespace tw
