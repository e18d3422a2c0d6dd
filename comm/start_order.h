#pragma once
// StartOrder: one order for the verbs of a communicator, whatever order each rank starts them in.
// Within a bucket all ranks start the same verbs; so it is enough that the first rank tells the
// others, whenever it starts one, of which bucket it is. The others let a verb go on when it is its
// bucket's turn. Announcements travel on a communicator of their own.
//
// The first rank's order is one that all can keep: what it started before something else did not
// wait for that, and so does not on any rank. Thread safety: one thread at a time.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "core/api/communicator.h"

namespace tw {

template <class Item>
class StartOrder {
 public:
  // `go` is called with each item when its turn has come. wire null: at once, in order of Add.
  StartOrder(std::unique_ptr<Communicator> wire, std::function<void(Item)> go)
      : wire_(std::move(wire)), go_(std::move(go)) {}

  void Add(int32_t bucket, Item item) {
    if (!wire_ || wire_->size() == 1) return go_(item);
    if (wire_->rank() == 0) {
      Announce(bucket);
      return go_(item);
    }
    waiting_[bucket].push_back(item);
    ++num_waiting_;
    LetGo();
  }

  // Takes in what has been announced. An error is a PeerError.
  Status Poll() {
    while (!sent_.empty()) {
      TW_ASSIGN_OR_RETURN(const Progress progress, sent_.front().ticket->Test());
      if (progress != Progress::kDone) break;
      sent_.pop_front();
    }
    // Nothing is asked for that nobody waits for: an announcement has a deadline, as all has.
    while (receiving_ || num_waiting_ > static_cast<int64_t>(announced_.size())) {
      if (!receiving_) Receive();
      TW_ASSIGN_OR_RETURN(const Progress progress, receiving_->Test());
      if (progress != Progress::kDone) break;
      receiving_.reset();
      announced_.push_back(received_);
      LetGo();
    }
    return OkStatus();
  }

  int64_t bytes_sent() const { return wire_ ? wire_->bytes_sent() : 0; }

 private:
  static constexpr OpTag kTag{0, -1, "order of the buckets"};
  struct Sent {
    std::vector<int32_t> buckets;
    std::unique_ptr<Ticket> ticket;
  };

  static MutableByteSpan Bytes(std::span<int32_t> values) {
    return {reinterpret_cast<uint8_t*>(values.data()), values.size_bytes()};
  }

  void Announce(int32_t bucket) {
    const size_t n = static_cast<size_t>(wire_->size());
    if (to_others_.empty()) {
      to_others_.assign(n, sizeof(int32_t));
      to_others_[0] = 0;
      nothing_.assign(n, 0);
    }
    Sent& sent = sent_.emplace_back();
    sent.buckets.assign(n - 1, bucket);
    sent.ticket = wire_->StartAllToAllV(Bytes(sent.buckets), to_others_, {}, nothing_, kTag);
  }

  void Receive() {
    const size_t n = static_cast<size_t>(wire_->size());
    if (from_first_.empty()) {
      nothing_.assign(n, 0);
      from_first_ = nothing_;
      from_first_[0] = sizeof(int32_t);
    }
    receiving_ = wire_->StartAllToAllV({}, nothing_, Bytes({&received_, 1}), from_first_, kTag);
  }

  void LetGo() {
    while (!announced_.empty()) {
      const auto it = waiting_.find(announced_.front());
      if (it == waiting_.end() || it->second.empty()) return;
      announced_.pop_front();
      const Item item = it->second.front();
      it->second.pop_front();
      --num_waiting_;
      go_(item);
    }
  }

  const std::unique_ptr<Communicator> wire_;
  const std::function<void(Item)> go_;
  std::vector<int64_t> to_others_, from_first_, nothing_;
  std::deque<Sent> sent_;                        // of the first rank
  std::map<int32_t, std::deque<Item>> waiting_;  // of the others, by bucket
  int64_t num_waiting_ = 0;
  std::deque<int32_t> announced_;  // whose turn it is, and nobody has come yet
  int32_t received_ = 0;
  std::unique_ptr<Ticket> receiving_;
};

}  // namespace tw
