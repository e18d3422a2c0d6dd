#pragma once
// Fleet: N clients on R ranks, for the lab. The same Strategy, Compressor, FeedbackPolicy, Fold
// (the arithmetic of an Exchange), Optimizer and Schedule objects as in `train`; in place of a
// model a Problem, in place of one client a rank a block of them, who take turns. Files:
//   fleet.cc         the verbs of a step and what they count
//   fleet_turns.cc   one Turns(): work, compose, encode, absorb, fold, resolve
//   fleet_client.cc  what one client sees and holds
//   fleet_wire.cc    bodies of other ranks
// Clients are in contiguous blocks; means are formed in client order, so that curves are the same
// bits on any number of ranks. What a client holds between two turns is its state slots
// ("client/<id>/<owner>/<parameter>/<slot>"); gradients, working copy and mean exist once a rank.
// Two exceptions: a codec of more rounds holds its clients' messages until the last one, and on
// more than one rank, or for TurnsCall::received, all bodies of a round lie in memory together.

#include <memory>
#include <string>
#include <vector>

#include "core/api/problem.h"
#include "core/api/schedule.h"
#include "core/api/strategy.h"
#include "core/engine/fleet/fleet_client.h"
#include "core/engine/fleet/fleet_wire.h"
#include "core/engine/lane.h"
#include "core/engine/plan.h"

namespace tw {

struct FleetOptions {
  int64_t steps = 1000;
  double lr = 0.1;
  double grad_clip = 0;  // 0: off
  uint64_t seed = 1;
};

// All pointers outlive the fleet.
struct FleetParts {
  Problem* problem = nullptr;
  const Plan* plan = nullptr;     // of the problem's parameters, for num_clients ranks
  const Route* server = nullptr;  // of Broadcast; null: dense. Its exchange is not used
  const Optimizer* optimizer = nullptr;
  const Schedule* schedule = nullptr;
  const Strategy* strategy = nullptr;
  Communicator* comm = nullptr;
  Lane* lane = nullptr;  // where comm may be used; null: here
};

// Since the start, over all clients: bodies as they are, with indices and norms, without frames. A
// dense number counts 4 bytes, in fp64 too, where other codecs send fp32: no baseline looks worse
// for the precision of the lab.
struct Traffic {
  int64_t uplink_bytes = 0;
  int64_t downlink_bytes = 0;
  int64_t messages = 0;  // up
  int64_t total_bytes() const { return uplink_bytes + downlink_bytes; }
};

class Fleet : private StepMachine {
 public:
  // ConfigError when the strategy, a codec or the server's route cannot run here.
  static StatusOr<std::unique_ptr<Fleet>> Create(const FleetParts& parts,
                                                 const FleetOptions& options);
  ~Fleet() override;

  // One step of the strategy. REQUIRES: fewer than options.steps were done.
  StatusOr<StepResult> Step();
  int64_t steps_done() const { return step_; }
  const Traffic& traffic() const { return traffic_; }
  // The shared parameters; may be written between two steps.
  std::span<const TensorView> x() const { return x_; }
  StateBag& state() override { return state_; }
  // For measuring, not counted as traffic: what every client holds in the strategy's slot of that
  // name, [client, element] in client order, on every rank; zeros where a client has none.
  // Collective.
  StatusOr<std::vector<double>> ClientSlots(const std::string& slot, size_t parameter);
  // Bytes of tensors held: states, parameters, gradients, bodies.
  int64_t memory_bytes() const;

 private:
  struct ParameterTurn;

  Fleet(const FleetParts& parts, const FleetOptions& options);
  Status Check() const;

  int64_t step() const override { return step_; }
  int64_t total_steps() const override { return options_.steps; }
  std::span<const ParameterView> parameters() const override { return views_; }
  double lr() const override;
  int num_clients() const override { return num_clients_; }
  RngStream shared_stream() const override;
  TensorView Slot(const char* name, size_t parameter, bool* created) override;
  StatusOr<TurnsResult> Turns(const TurnsCall& call) override;
  Status Broadcast(std::span<const TensorView> vectors) override;
  StatusOr<double> ComputeGradients() override;
  StatusOr<bool> FinishExchange() override;
  Status ApplyUpdate() override;
  // Of one rank's own; LocalRounds is kTrainOnly, and Create says so.
  StatusOr<LocalGradients> ComputeLocalGradients() override;
  Status ApplyLocalUpdate() override;
  void ForgetMoments() override;
  StatusOr<bool> Exchange(std::span<const TensorView> vectors) override;
  Status StartExchange(std::span<const TensorView> vectors) override;
  StatusOr<bool> FinishStarted() override;

  // fleet_turns.cc
  Status OpenTurn(const TurnsCall& call);
  const Route& RouteOf(const ParameterTurn& turn, int client) const;
  CodecContext ContextOf(size_t parameter, int client, const StateScope* state);
  Status RunRound(const TurnsCall& call, int round);
  // *sends: whether there is a message.
  Status Work(const TurnsCall& call, size_t local, bool* sends);
  void Compose(size_t local);
  Status Encode(const TurnsCall& call, size_t local, int round);
  Status AddBody(size_t parameter, int client, ByteSpan body);
  Status AddAllBodies(const TurnsCall& call, int round);
  Status CloseTurn(const TurnsCall& call, TurnsResult* result);
  int64_t PaidBytes(const Compressor& codec, size_t parameter, size_t body) const;

  FleetParts parts_;
  FleetOptions options_;
  int num_clients_;
  int64_t dimension_ = 0;  // of all parameters together
  StateBag state_;
  Workspace scratch_;
  std::vector<AlignedBuffer> storage_;
  std::vector<TensorView> x_;
  std::vector<ParameterView> views_;  // x and the mean
  std::vector<StateScope> codec_, feedback_, strategy_, server_codec_, server_feedback_;
  std::unique_ptr<FleetClient> client_;
  FleetWire wire_;

  // Of the turn under way.
  std::vector<ParameterTurn> turns_;
  std::vector<int> everybody_;
  std::span<const int> taking_part_;
  size_t local_begin_ = 0, local_end_ = 0;  // this rank's, in taking_part_
  uint64_t wire_step_ = 0;
  int rounds_ = 1;
  bool streaming_ = false;
  std::vector<uint8_t> arrived_;  // one of taking_part_ each
  std::vector<double> losses_;
  std::vector<ClientNote> own_notes_, notes_;
  std::vector<int64_t> counts_, rank_bytes_;  // of clients that take part, and of their frames
  std::vector<ByteSpan> bodies_;              // [taking part, parameter]
  std::vector<Message> messages_;             // [local, parameter]
  std::vector<uint8_t> first_done_;  // [client, parameter]: its dense first message has arrived

  int64_t step_ = 0;
  uint64_t turns_this_step_ = 0;
  int64_t updates_ = 0;
  TurnsResult gradients_;
  Traffic traffic_;
};

}  // namespace tw
