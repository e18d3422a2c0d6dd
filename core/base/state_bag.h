#pragma once
// Named tensors at stable addresses: error feedback, momentum, Q factors, optimizer cells. Keyed by
// parameter, never by bucket. A checkpoint is a walk over one; nobody writes a serializer of their
// own.
//
// A slot's name is "<owner>/<parameter>/<slot>", e.g. "feedback/blocks.0.qkv.weight/e".
// Journal: between BeginJournal() and CommitJournal() the first Touch of a slot keeps a copy;
// Rollback() restores every touched slot bit for bit. That is how a step in which some rank finds a
// non-finite gradient leaves no trace, even when other buckets of it were already exchanged.
// Journal copies are allocated once.
//
// Where tensors lie on a device, slots of place kTensors do too; whoever makes, touches, rolls
// back, copies in or out such a slot is in a DeviceScope (core/base/device.h).
//
// Thread safety: Slot, Find, Touch, mismatch and Unclaimed from any thread, e.g. of local steps
// while the lane exchanges what the steps before have moved; distinct slots may be written from
// different threads. Everything else while nobody else is at the bag.

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/base/tensor_view.h"
#include "core/base/workspace.h"

namespace tw {

// What a slot becomes when the number of ranks changes.
enum class Reshard : uint8_t {
  kReplicated = 0,  // the same on every rank: taken over unchanged (H, optimizer moments, Q)
  kKeepMean = 1,  // per rank; the mean over ranks is what the next update sees (e, h_i): merged by
                  // average, split by copy
};

// Whose memory a slot lies in.
enum class StatePlace : uint8_t {
  kHost = 0,     // counts and flags, which the host reads
  kTensors = 1,  // the memory that the run's tensors lie in
};

struct StateSlot {
  TensorView view;
  std::vector<int64_t> shape;
  Reshard reshard = Reshard::kReplicated;
  bool on_device = false;  // view.data is an address of a device
};

class StateBag {
 public:
  explicit StateBag(DeviceMemory* memory = nullptr) : memory_(memory) {}
  StateBag(const StateBag&) = delete;
  StateBag& operator=(const StateBag&) = delete;

  // The slot of that name, made and zeroed at first use. TW_CHECKs that shape and dtype never
  // change. *created (may be null) tells whether this call made it.
  TensorView Slot(const std::string& name, const std::vector<int64_t>& shape, DType dtype,
                  Reshard reshard, bool* created = nullptr, StatePlace place = StatePlace::kHost);
  // The slot of that name in the host's memory, filled by the caller from a checkpoint; it moves to
  // where its owner wants it when he asks for it. When its owner later asks for it
  // with another shape or dtype, the settings changed since: the owner gets a new zeroed slot, and
  // mismatch() says so; likewise when ranks have one each and the owner wants the same on all. The
  // other way round is no harm: each rank's own starts from the common one. REQUIRES: no slot of
  // that name with another shape or dtype.
  TensorView Restore(const std::string& name, const std::vector<int64_t>& shape, DType dtype,
                     Reshard reshard);
  // DataError about the first restored slot that did not fit its owner; OK while all did.
  Status mismatch() const;
  // DataError about the first restored slot of that prefix that nobody has asked for.
  Status Unclaimed(const std::string& prefix) const;
  // Null when there is none.
  const StateSlot* Find(const std::string& name) const;
  void Erase(const std::string& name);
  void Clear();

  // In name order.
  void ForEach(const std::function<void(const std::string&, const StateSlot&)>& visit) const;
  int64_t bytes(const std::string& prefix = "") const;

  void BeginJournal();
  void Touch(const std::string& name);  // no-op when no journal is open
  void CommitJournal();
  void Rollback();  // slots made since BeginJournal() are gone again
  bool journaling() const { return journaling_; }
  // Another number whenever a view that Slot() has given may no longer be the slot's.
  uint64_t generation() const { return generation_; }

 private:
  struct Cell {
    StateSlot slot;
    AlignedBuffer storage, journal;
    DeviceBlock device_storage, device_journal;
    bool touched = false;
    bool made_in_journal = false;
    bool restored = false;  // its owner has not asked for it yet
  };
  // Gives the slot of `cell`, which has none or host memory, memory of its own there.
  void Place(Cell& cell, StatePlace place);

  DeviceMemory* const memory_;
  mutable std::mutex mutex_;  // of cells_ and mismatch_
  std::map<std::string, std::unique_ptr<Cell>> cells_;
  bool journaling_ = false;
  uint64_t generation_ = 0;
  Status mismatch_;
};

// The slots of one owner and one parameter. Obtaining a slot also journals it. Outside of a journal
// a slot is looked up by its full name once and remembered. Thread safety: as StateBag::Slot.
class StateScope {
 public:
  StateScope(StateBag* bag, std::string prefix, StatePlace place = StatePlace::kHost)
      : bag_(bag), common_prefix_(prefix), prefix_(std::move(prefix)), place_(place) {}
  // Slots that are the same on all ranks (kReplicated) go under common_prefix: where one process
  // holds the state of many clients they share them.
  StateScope(StateBag* bag, std::string prefix, std::string common_prefix)
      : bag_(bag), common_prefix_(std::move(common_prefix)), prefix_(std::move(prefix)) {}
  TensorView Slot(const char* slot, const std::vector<int64_t>& shape, DType dtype, Reshard reshard,
                  bool* created = nullptr) const;
  StateBag* bag() const { return bag_; }
  const std::string& prefix() const { return prefix_; }

 private:
  struct Known {
    std::string slot;
    Reshard reshard = Reshard::kReplicated;
    std::vector<int64_t> shape;
    TensorView view;
  };

  StateBag* bag_;
  std::string common_prefix_;
  std::string prefix_;  // "feedback/blocks.0.qkv.weight/"
  StatePlace place_ = StatePlace::kHost;
  mutable std::vector<Known> known_;
  mutable uint64_t generation_ = 0;  // of the bag when they were looked up
};

}  // namespace tw
