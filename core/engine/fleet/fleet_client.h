#pragma once
// The one Client object of a fleet: it is every client of the rank in turn.

#include <vector>

#include "core/api/problem.h"
#include "core/api/strategy.h"

namespace tw {

class FleetClient : public Client {
 public:
  // Clients first .. first + count - 1 live on this rank; x is what they share.
  FleetClient(Problem* problem, std::span<const TensorView> x, StateBag* state, uint64_t seed,
              int first, int count);

  int id() const override { return id_; }
  std::span<const ParameterView> parameters() const override { return views_; }
  StatusOr<double> ComputeGradients(int64_t batch) override;
  TensorView Slot(const char* name, size_t parameter, bool* created) override;

  // A turn begins. `keep` >= 0: gradients go to memory that is kept under that number.
  void Begin(int id, uint64_t step, bool moves, int keep);
  // Work is over: what it did to slots stays, or is undone.
  void End(bool keep_slots);
  // Someone else's turn to look at slots: no undoing.
  void Visit(int id) { id_ = id; }
  double loss() const { return loss_; }

  const StateScope& codec(int id, size_t p) const { return lots_[LotOf(id, p)].codec; }
  const StateScope& feedback(int id, size_t p) const { return lots_[LotOf(id, p)].feedback; }
  int64_t memory_bytes() const;

 private:
  // One client's state of one parameter.
  struct Lot {
    StateScope codec, feedback, strategy;
  };
  struct Touched {
    std::string name;  // empty: existed before, `before` holds what it was
    TensorView view;
  };

  size_t LotOf(int id, size_t p) const { return static_cast<size_t>(id - first_) * x_.size() + p; }
  void PointGradients(AlignedBuffer& memory);
  void Remember(const std::string& full_name, TensorView view, bool created);

  Problem* problem_;
  std::vector<TensorView> x_;
  StateBag* state_;
  GradientCall call_;
  int first_;
  std::vector<Lot> lots_;
  std::vector<ParameterView> views_;
  std::vector<TensorView> values_, grads_;  // of views_
  AlignedBuffer working_, shared_grads_;
  std::vector<AlignedBuffer> kept_grads_;
  std::vector<TensorView> own_values_;  // the working copy
  bool in_work_ = false;
  std::vector<Touched> touched_;
  std::vector<AlignedBuffer> before_;
  int id_ = 0;
  double loss_ = 0;
};

// Bytes of all views, each rounded up to a cache line, and their layout in such a buffer.
size_t RoomFor(std::span<const TensorView> views);
void LayOut(std::span<const TensorView> like, uint8_t* memory, std::vector<TensorView>* out);

}  // namespace tw
