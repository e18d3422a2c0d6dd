#pragma once
// TurnMachine: the clients' side of StepMachine where every rank is one client whose model is the
// shared one. The trainer derives from it. Between ranks that must stay equal nobody is left out:
// when one rank's message does not arrive, nobody's does, and all state is as before the turn.

#include <vector>

#include "core/api/strategy.h"
#include "core/engine/gradient_reducer.h"

namespace tw {

class TurnMachine : public StepMachine {
 protected:
  // All outlive the machine.
  TurnMachine(GradientReducer* reducer, StateBag* state, Communicator* comm, uint64_t seed)
      : reducer_(reducer), state_(state), comm_(comm), seed_(seed) {}

  // Forward and backward over all micro-batches of batch number `batch` of the step; nothing is
  // sent. The loss.
  virtual StatusOr<double> LocalBackward(int64_t batch) = 0;
  // A turn is over; loss is the mean over ranks, and has counted when `outcome` is finite.
  virtual void RecordTurn(const ReduceOutcome& outcome, double loss) = 0;

  int num_clients() const final { return comm_->size(); }
  RngStream shared_stream() const final;
  TensorView Slot(const char* name, size_t parameter, bool* created) final;
  StatusOr<TurnsResult> Turns(const TurnsCall& call) final;
  // Every rank has formed the same vectors: nothing needs to travel.
  Status Broadcast(std::span<const TensorView>) final { return OkStatus(); }
  void BeginTurns() { turns_ = 0; }  // of a step

 private:
  class Own;  // the rank as a Client

  Status CheckTurn(const TurnsCall& call) const;
  Status Work(const TurnsCall& call);

  GradientReducer* reducer_;
  StateBag* state_;
  Communicator* comm_;
  uint64_t seed_;
  uint64_t turns_ = 0;
  double loss_ = 0;
  std::vector<AlignedBuffer> shared_;  // parameters while the working copy moves
};

}  // namespace tw
