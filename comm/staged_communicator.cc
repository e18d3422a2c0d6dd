#include "comm/staged_communicator.h"

#include <algorithm>
#include <array>
#include <bit>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "comm/parts.h"
#include "comm/wait_by_tests.h"

namespace tw {
namespace {

// One verb's way over the wire.
struct Journey {
  enum class Verb { kAllGather, kAllToAll, kBroadcast, kSum };
  struct Arrival {
    uint8_t* to;          // of the device
    size_t begin, bytes;  // in `in`
  };

  OpTag tag;
  Verb verb = Verb::kAllGather;
  std::vector<int64_t> send_sizes, recv_sizes;  // by rank; own part nothing, but for all-gathers
  int root = 0;
  DType type = DType::kF32;
  MutableByteSpan out, in;              // pinned; `out` may be part of `in`
  std::vector<MutableByteSpan> pinned;  // what was lent
  std::vector<Arrival> arrivals;
  bool sends = false;
  std::unique_ptr<DeviceMark> copied;  // `out` is filled; null: nothing is sent

  void Clear() {
    send_sizes.clear();
    recv_sizes.clear();
    out = in = {};
    pinned.clear();
    arrivals.clear();
    sends = false;
    copied.reset();
  }
};

// Pinned memory and journeys between one verb and the next. Shared by a communicator, its parts and
// their tickets.
class Pool {
 public:
  explicit Pool(DeviceQueue& queue) : queue_(queue) {}
  ~Pool() {
    for (const Arriving& arriving : arriving_) Free(*arriving.journey);
    for (const auto& of_size : free_) {
      for (uint8_t* memory : of_size) queue_.FreePinned(memory);
    }
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  std::unique_ptr<Journey> Begin() {
    while (!arriving_.empty() && arriving_.front().copied->reached()) {
      End(std::move(arriving_.front().journey));
      arriving_.pop_front();
    }
    if (journeys_.empty()) return std::make_unique<Journey>();
    std::unique_ptr<Journey> journey = std::move(journeys_.back());
    journeys_.pop_back();
    return journey;
  }
  // Of a journey; bodies vary in length, so sizes are powers of two.
  MutableByteSpan Lend(Journey& journey, size_t bytes) {
    if (bytes == 0) return {};
    auto& of_size = free_[ClassOf(bytes)];
    uint8_t* memory = nullptr;
    if (of_size.empty()) {
      memory = queue_.AllocatePinned(size_t{1} << ClassOf(bytes));
    } else {
      memory = of_size.back();
      of_size.pop_back();
    }
    return journey.pinned.emplace_back(memory, bytes);
  }
  // Its memory is free when the queue has copied what came.
  void EndAfterCopies(std::unique_ptr<Journey> journey) {
    arriving_.push_back({queue_.Mark(), std::move(journey)});
  }
  // Nobody uses its memory any more.
  void End(std::unique_ptr<Journey> journey) {
    for (const MutableByteSpan memory : journey->pinned) {
      free_[ClassOf(memory.size())].push_back(memory.data());
    }
    journey->Clear();
    journeys_.push_back(std::move(journey));
  }

 private:
  static constexpr size_t kSmallest = 4096;
  static size_t ClassOf(size_t bytes) {
    return static_cast<size_t>(std::bit_width(std::max(bytes, kSmallest) - 1));
  }

  struct Arriving {
    std::unique_ptr<DeviceMark> copied;
    std::unique_ptr<Journey> journey;
  };
  void Free(const Journey& journey) {
    for (const MutableByteSpan memory : journey.pinned) queue_.FreePinned(memory.data());
  }

  DeviceQueue& queue_;
  std::array<std::vector<uint8_t*>, 64> free_;  // [c]: of 2^c bytes
  std::deque<Arriving> arriving_;               // in the order of the queue
  std::vector<std::unique_ptr<Journey>> journeys_;
};

class StagedTicket;

// What the tickets of one communicator share; they may outlive it.
struct Shared {
  const std::unique_ptr<Communicator> owned;  // the wire, or null
  Communicator& wire;
  DeviceQueue& queue;
  const std::shared_ptr<Pool> pool;
  std::vector<StagedTicket*> waiting = {};  // for the wire, in order
  Status broken = {};                       // the order was left

  void StartReady();
};

class StagedTicket : public Ticket {
 public:
  // journey null: nothing to wait for.
  StagedTicket(std::shared_ptr<Shared> shared, std::unique_ptr<Journey> journey)
      : shared_(std::move(shared)), journey_(std::move(journey)) {
    if (!journey_) return;
    if (shared_->broken.ok()) {
      shared_->waiting.push_back(this);
    } else {
      status_ = Annotate(shared_->broken, ToString(journey_->tag) + " is given up");
    }
  }
  ~StagedTicket() override {
    const auto it = std::find(shared_->waiting.begin(), shared_->waiting.end(), this);
    if (it == shared_->waiting.end()) return;
    shared_->waiting.erase(it);
    if (shared_->broken.ok()) {
      shared_->broken = PeerError(ToString(journey_->tag) + " was left half way");
    }
  }
  StagedTicket(const StagedTicket&) = delete;
  StagedTicket& operator=(const StagedTicket&) = delete;
  static void* operator new(size_t bytes) { return internal::NewFrame(bytes); }
  static void operator delete(void* ticket, size_t bytes) { internal::DeleteFrame(ticket, bytes); }

  StatusOr<Progress> Test() override {
    TW_RETURN_IF_ERROR(status_);
    if (!journey_) return Progress::kDone;
    const bool was_waiting = !on_wire_;
    shared_->StartReady();
    TW_RETURN_IF_ERROR(status_);
    if (!on_wire_) return Progress::kIdle;
    TW_ASSIGN_OR_RETURN(const Progress progress, on_wire_->Test());
    if (progress != Progress::kDone) return was_waiting ? Progress::kMoved : progress;
    on_wire_.reset();
    bool copies = false;
    for (const Journey::Arrival& a : journey_->arrivals) {
      if (a.bytes > 0) shared_->queue.StartCopyIn(a.to, journey_->in.data() + a.begin, a.bytes);
      copies = copies || a.bytes > 0;
    }
    if (copies) {
      shared_->pool->EndAfterCopies(std::move(journey_));
    } else {
      shared_->pool->End(std::move(journey_));
    }
    return Progress::kDone;
  }
  Status Wait() override { return WaitByTests(*this); }

  bool ready() const { return !journey_->copied || journey_->copied->reached(); }
  void StartOnWire() {
    Communicator& wire = shared_->wire;
    const Journey& j = *journey_;
    switch (j.verb) {
      case Journey::Verb::kAllGather:
        on_wire_ = wire.StartAllGatherV(j.out, j.send_sizes, j.in, j.tag);
        return;
      case Journey::Verb::kAllToAll:
        on_wire_ = wire.StartAllToAllV(j.out, j.send_sizes, j.in, j.recv_sizes, j.tag);
        return;
      case Journey::Verb::kBroadcast:
        on_wire_ = wire.StartBroadcast(j.in, j.root, j.tag);
        return;
      case Journey::Verb::kSum:
        on_wire_ = wire.StartOwnSum(j.in, j.type, j.tag);
        if (on_wire_) return;
        status_ = ConfigError("comm.sums = \"library\": the communicator \"" +
                              std::string(wire.name()) + "\" has no all-reduce of its own");
    }
  }

 private:
  const std::shared_ptr<Shared> shared_;
  std::unique_ptr<Journey> journey_;
  std::unique_ptr<Ticket> on_wire_;
  Status status_;
};

// The queue reaches its marks in the order of the verbs: who waits behind another is not ready
// before it, or has nothing to send.
void Shared::StartReady() {
  size_t started = 0;
  while (started < waiting.size() && waiting[started]->ready()) waiting[started++]->StartOnWire();
  waiting.erase(waiting.begin(), waiting.begin() + static_cast<ptrdiff_t>(started));
}

class StagedCommunicator : public Communicator {
 public:
  // `owned` is `wire` or null.
  StagedCommunicator(Communicator& wire, std::unique_ptr<Communicator> owned, DeviceQueue& queue,
                     std::shared_ptr<Pool> pool)
      : name_("staged " + std::string(wire.name())),
        shared_(new Shared{std::move(owned), wire, queue, std::move(pool)}) {}

  int rank() const override { return shared_->wire.rank(); }
  int size() const override { return shared_->wire.size(); }
  const char* name() const override { return name_.c_str(); }
  Communicator& control() override { return shared_->wire; }
  int64_t bytes_sent() const override { return shared_->wire.bytes_sent(); }
  void Abort(int code) override { shared_->wire.Abort(code); }

  std::unique_ptr<Ticket> StartAllGatherV(ByteSpan mine, std::span<const int64_t> sizes,
                                          MutableByteSpan all, const OpTag& tag) override {
    const std::vector<int64_t>& begins = CheckedBegins(sizes, all.size(), 0);
    const MutableByteSpan own = Part(all, begins, rank());
    CopyOwn(mine, own);
    if (size() == 1) return Done();
    auto journey = Begin(Journey::Verb::kAllGather, tag);
    journey->send_sizes.assign(sizes.begin(), sizes.end());
    journey->in = shared_->pool->Lend(*journey, all.size());
    journey->out = Part(journey->in, begins, rank());
    CopyOut(*journey, 0, mine);
    const size_t behind = static_cast<size_t>(own.data() - all.data()) + own.size();
    journey->arrivals = {{all.data(), 0, behind - own.size()},
                         {all.data() + behind, behind, all.size() - behind}};
    return Launch(std::move(journey));
  }

  std::unique_ptr<Ticket> StartAllToAllV(ByteSpan send, std::span<const int64_t> send_sizes,
                                         MutableByteSpan recv, std::span<const int64_t> recv_sizes,
                                         const OpTag& tag) override {
    const std::vector<int64_t>& send_begins = CheckedBegins(send_sizes, send.size(), 0);
    const std::vector<int64_t>& recv_begins = CheckedBegins(recv_sizes, recv.size(), 1);
    const size_t me = static_cast<size_t>(rank());
    const size_t own = static_cast<size_t>(send_sizes[me]);
    CopyOwn(Part(send, send_begins, rank()), Part(recv, recv_begins, rank()));
    if (size() == 1) return Done();
    auto journey = Begin(Journey::Verb::kAllToAll, tag);
    journey->send_sizes.assign(send_sizes.begin(), send_sizes.end());
    journey->recv_sizes.assign(recv_sizes.begin(), recv_sizes.end());
    journey->send_sizes[me] = journey->recv_sizes[me] = 0;
    journey->out = shared_->pool->Lend(*journey, send.size() - own);
    journey->in = shared_->pool->Lend(*journey, recv.size() - own);
    const size_t sent_before = static_cast<size_t>(send_begins[me]);
    CopyOut(*journey, 0, send.first(sent_before));
    CopyOut(*journey, sent_before, send.subspan(sent_before + own));
    const size_t before = static_cast<size_t>(recv_begins[me]);
    journey->arrivals = {{recv.data(), 0, before},
                         {recv.data() + before + own, before, recv.size() - before - own}};
    return Launch(std::move(journey));
  }

  std::unique_ptr<Ticket> StartBroadcast(MutableByteSpan bytes, int root,
                                         const OpTag& tag) override {
    TW_CHECK(root >= 0 && root < size());
    if (size() == 1) return Done();
    auto journey = Begin(Journey::Verb::kBroadcast, tag);
    journey->root = root;
    journey->in = journey->out = shared_->pool->Lend(*journey, bytes.size());
    if (rank() == root) {
      CopyOut(*journey, 0, bytes);
    } else {
      journey->arrivals = {{bytes.data(), 0, bytes.size()}};
    }
    return Launch(std::move(journey));
  }

  // Whether the wire has an all-reduce shows when it is asked for one: not here, but in an error of
  // the ticket.
  std::unique_ptr<Ticket> StartOwnSum(MutableByteSpan numbers, DType type,
                                      const OpTag& tag) override {
    if (size() == 1) return Done();
    auto journey = Begin(Journey::Verb::kSum, tag);
    journey->type = type;
    journey->in = journey->out = shared_->pool->Lend(*journey, numbers.size());
    CopyOut(*journey, 0, numbers);
    journey->arrivals = {{numbers.data(), 0, numbers.size()}};
    return Launch(std::move(journey));
  }

  StatusOr<std::unique_ptr<Communicator>> Split(int color) override {
    TW_ASSIGN_OR_RETURN(auto part, shared_->wire.Split(color));
    if (!part) return std::unique_ptr<Communicator>();
    Communicator& wire = *part;
    return std::make_unique<StagedCommunicator>(wire, std::move(part), shared_->queue,
                                                shared_->pool);
  }

 private:
  const std::vector<int64_t>& CheckedBegins(std::span<const int64_t> sizes, size_t total,
                                            size_t list) {
    TW_CHECK_EQ(static_cast<int>(sizes.size()), size());
    const std::vector<int64_t>& begins = BeginsOf(sizes, &begins_[list]);
    TW_CHECK_EQ(begins.back(), static_cast<int64_t>(total));
    return begins;
  }
  void CopyOwn(ByteSpan from, MutableByteSpan to) {
    TW_CHECK_EQ(from.size(), to.size());
    if (from.empty() || from.data() == to.data()) return;
    shared_->queue.Copy(to.data(), from.data(), from.size());
  }
  std::unique_ptr<Journey> Begin(Journey::Verb verb, const OpTag& tag) {
    auto journey = shared_->pool->Begin();
    journey->verb = verb;
    journey->tag = tag;
    return journey;
  }
  // Puts `bytes` of the device at `begin` of what is sent.
  void CopyOut(Journey& journey, size_t begin, ByteSpan bytes) {
    if (bytes.empty()) return;
    shared_->queue.StartCopyOut(journey.out.data() + begin, bytes.data(), bytes.size());
    journey.sends = true;
  }
  std::unique_ptr<Ticket> Launch(std::unique_ptr<Journey> journey) {
    if (journey->sends) journey->copied = shared_->queue.Mark();
    return std::make_unique<StagedTicket>(shared_, std::move(journey));
  }
  std::unique_ptr<Ticket> Done() { return std::make_unique<StagedTicket>(shared_, nullptr); }

  const std::string name_;
  const std::shared_ptr<Shared> shared_;
  std::array<std::vector<int64_t>, 2> begins_;  // of one call's parts
};

}  // namespace

std::unique_ptr<Communicator> MakeStagedCommunicator(Communicator& wire, DeviceQueue& queue) {
  return std::make_unique<StagedCommunicator>(wire, nullptr, queue, std::make_shared<Pool>(queue));
}

}  // namespace tw
