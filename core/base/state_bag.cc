#include "core/base/state_bag.h"

#include <cstring>

namespace tw {
namespace {

std::string Describe(const std::vector<int64_t>& shape, DType dtype) {
  std::string out = std::string(DTypeName(dtype)) + " [";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

}  // namespace

TensorView StateBag::Slot(const std::string& name, const std::vector<int64_t>& shape, DType dtype,
                          Reshard reshard, bool* created, StatePlace place) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto& cell = cells_[name];
  if (cell && cell->restored) {
    const StateSlot& was = cell->slot;
    const bool fits = was.shape == shape && was.view.dtype == dtype;
    const bool diverged = was.reshard == Reshard::kKeepMean && reshard == Reshard::kReplicated;
    if (fits && diverged && mismatch_.ok()) {
      mismatch_ = DataError("state " + name +
                            " is each rank's own in the checkpoint, the same on all ranks in this "
                            "run: give the settings it was saved with, or another run.dir to start "
                            "over");
    }
    if (!fits && mismatch_.ok()) {
      mismatch_ = DataError("state " + name + " is " + Describe(was.shape, was.view.dtype) +
                            " in the checkpoint, " + Describe(shape, dtype) +
                            " in this run: give the settings it was saved with, or another run.dir "
                            "to start over");
    }
    if (!fits) cell = nullptr;
    if (cell) {
      cell->restored = false;
      cell->slot.reshard = reshard;
      Place(*cell, place);
    }
  }
  if (created) *created = cell == nullptr;
  if (!cell) {
    cell = std::make_unique<Cell>();
    int64_t numel = 1;
    for (int64_t d : shape) numel *= d;
    cell->slot.shape = shape;
    cell->slot.reshard = reshard;
    cell->slot.view = {nullptr, dtype, numel};
    Place(*cell, place);
    cell->made_in_journal = journaling_;
  }
  TW_CHECK(cell->slot.shape == shape);
  TW_CHECK_EQ(static_cast<int>(cell->slot.view.dtype), static_cast<int>(dtype));
  return cell->slot.view;
}

void StateBag::Place(Cell& cell, StatePlace place) {
  StateSlot& slot = cell.slot;
  const size_t bytes = static_cast<size_t>(slot.view.bytes());
  const void* const filled = slot.view.data;
  if (place == StatePlace::kTensors && memory_) {
    if (slot.on_device) return;
    cell.device_storage = DeviceBlock(memory_, bytes);
    slot.view.data = cell.device_storage.data();
    slot.on_device = true;
    filled ? PutBytes(slot.view.data, filled, bytes) : ZeroBytes(slot.view.data, bytes);
    cell.storage = {};
  } else if (!filled) {
    slot.view.data = cell.storage.Reserve(bytes);
    std::memset(slot.view.data, 0, bytes);
  }
}

TensorView StateBag::Restore(const std::string& name, const std::vector<int64_t>& shape,
                             DType dtype, Reshard reshard) {
  ++generation_;
  const TensorView view = Slot(name, shape, dtype, reshard);
  cells_[name]->restored = true;
  return view;
}

Status StateBag::mismatch() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return mismatch_;
}

Status StateBag::Unclaimed(const std::string& prefix) const {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [name, cell] : cells_) {
    if (!cell->restored || !name.starts_with(prefix)) continue;
    return DataError("state " + name +
                     " is in the checkpoint, and nothing in this run takes it over: give the "
                     "settings it was saved with, or another run.dir to start over");
  }
  return OkStatus();
}

const StateSlot* StateBag::Find(const std::string& name) const {
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = cells_.find(name);
  return it == cells_.end() ? nullptr : &it->second->slot;
}

void StateBag::Erase(const std::string& name) {
  ++generation_;
  cells_.erase(name);
}
void StateBag::Clear() {
  ++generation_;
  cells_.clear();
}

void StateBag::ForEach(
    const std::function<void(const std::string&, const StateSlot&)>& visit) const {
  for (const auto& [name, cell] : cells_) visit(name, cell->slot);
}

int64_t StateBag::bytes(const std::string& prefix) const {
  int64_t total = 0;
  for (const auto& [name, cell] : cells_) {
    if (name.compare(0, prefix.size(), prefix) == 0) total += cell->slot.view.bytes();
  }
  return total;
}

void StateBag::BeginJournal() {
  for (auto& [name, cell] : cells_) cell->touched = cell->made_in_journal = false;
  journaling_ = true;
}

void StateBag::Touch(const std::string& name) {
  if (!journaling_) return;
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = cells_.find(name);
  TW_CHECK(it != cells_.end());
  Cell& cell = *it->second;
  if (cell.touched || cell.made_in_journal) return;
  const size_t bytes = static_cast<size_t>(cell.slot.view.bytes());
  if (cell.slot.on_device) {
    if (!cell.device_journal.data()) cell.device_journal = DeviceBlock(memory_, bytes);
    CopyBytes(cell.device_journal.data(), cell.slot.view.data, bytes);
  } else {
    std::memcpy(cell.journal.Reserve(bytes), cell.slot.view.data, bytes);
  }
  cell.touched = true;
}

void StateBag::CommitJournal() { journaling_ = false; }

void StateBag::Rollback() {
  ++generation_;
  std::erase_if(cells_, [](const auto& item) { return item.second->made_in_journal; });
  for (auto& [name, cell] : cells_) {
    if (!cell->touched) continue;
    const size_t bytes = static_cast<size_t>(cell->slot.view.bytes());
    if (cell->slot.on_device) {
      CopyBytes(cell->slot.view.data, cell->device_journal.data(), bytes);
    } else {
      std::memcpy(cell->slot.view.data, cell->journal.data(), bytes);
    }
  }
  journaling_ = false;
}

TensorView StateScope::Slot(const char* slot, const std::vector<int64_t>& shape, DType dtype,
                            Reshard reshard, bool* created) const {
  if (generation_ != bag_->generation()) {
    generation_ = bag_->generation();
    known_.clear();
  }
  if (!bag_->journaling()) {
    for (const Known& known : known_) {
      if (known.slot != slot || known.reshard != reshard || known.view.dtype != dtype) continue;
      if (known.shape != shape) continue;
      if (created) *created = false;
      return known.view;
    }
  }
  const std::string name = (reshard == Reshard::kReplicated ? common_prefix_ : prefix_) + slot;
  const TensorView view = bag_->Slot(name, shape, dtype, reshard, created, place_);
  bag_->Touch(name);
  if (!bag_->journaling()) known_.push_back({slot, reshard, shape, view});
  return view;
}

}  // namespace tw
