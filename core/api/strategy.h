#pragma once
// Strategy: the body of a step, i.e. what is exchanged and when. `sync` exchanges gradients every
// step, `diloco` what a round of each rank's own steps has moved. A strategy calls the engine
// through StepMachine and owns nothing else; what changes between steps is in the state bag.
//
// Clients. A client computes gradients on data of its own and sends messages. In `train` every rank
// is one client; in the lab a process hosts many, who take turns: between two turns a client is its
// state slots and nothing else. A strategy written with Turns() runs in both, and its bits do not
// depend on how clients are spread over ranks.

#include <functional>

#include "core/api/feedback.h"
#include "core/api/optimizer.h"
#include "core/base/registry.h"

namespace tw {

enum class Skip : uint8_t {
  kNo = 0,
  kHere = 1,        // this rank alone left its parameters and moments as they were
  kEverywhere = 2,  // all ranks did
};

struct StepResult {
  double loss = 0;  // this rank's mean over its micro-batches
  Skip skip = Skip::kNo;
  const char* why = "";        // it was skipped, for the log
  bool replicas_equal = true;  // afterwards parameters are the same on all ranks, bit for bit
};

struct LocalGradients {
  double loss = 0;  // this rank's mean over its micro-batches
  bool finite = true;
};

// One client during its turn.
class Client {
 public:
  virtual ~Client() = default;
  virtual int id() const = 0;  // 0 .. num_clients - 1 over all ranks
  // value: the working copy. It equals the shared parameters when the turn begins, and may be
  // written only where TurnsCall::moves says so. grad: gradients, then the message. Undefined at
  // first.
  virtual std::span<const ParameterView> parameters() const = 0;
  // The gradients at the working copy, on this client's own batch number `batch` of this step: the
  // same number is the same batch. Returns the loss (NaN where a problem has none).
  virtual StatusOr<double> ComputeGradients(int64_t batch) = 0;
  // State of this client alone, zeros at first, of the parameter's shape (fp32; fp64 for fp64
  // parameters). `name` names it for ever. What `work` does to it is undone when its message does
  // not arrive.
  virtual TensorView Slot(const char* name, size_t parameter, bool* created = nullptr) = 0;
};

// One round of turns: clients compute, each sends one message, everybody gets the mean.
struct TurnsCall {
  // Ascending ids of those that take part; empty: all. In `train` all must take part.
  std::span<const int> clients;
  bool moves = false;  // `work` writes to working copies
  bool dense = false;  // without compressor and feedback
  // Leaves the message in the gradients and returns true, or false to send nothing. A message that
  // is not finite is not sent either.
  std::function<StatusOr<bool>(Client&)> work;
  // May be null. The message has been encoded: own(scale, out) adds the decoded body, through the
  // very DecodeAdd that receivers use.
  std::function<Status(Client&, size_t parameter, OwnDecoder own)> sent;
  // May be null. After all turns, on every rank and in client order: what `client` has sent.
  std::function<Status(int client, size_t parameter, OwnDecoder body)> received;
  // Where the mean goes: one view a parameter, of its shape and dtype; empty: the gradients of
  // StepMachine::parameters(). `work` must not read it.
  std::span<const TensorView> out;
  // What each client was sent before its turn, in dense vectors as long as all parameters: 1 for x,
  // 2 for x and c. For the count of bytes only.
  int downlink_vectors = 1;
};

struct TurnsResult {
  // The mean is over those whose message arrived; of the ef21 family, whose H must stay the mean of
  // all h_i, the sum over them divided by num_clients.
  int arrived = 0;
  double loss = 0;  // mean over the clients that arrived, of what ComputeGradients said last
};

// Where a strategy can run.
enum class Place : uint8_t { kEverywhere = 0, kTrainOnly = 1, kLabOnly = 2 };

// What the engine offers. Called from the main thread.
class StepMachine {
 public:
  virtual ~StepMachine() = default;

  virtual int64_t step() const = 0;         // 0-based
  virtual int64_t total_steps() const = 0;  // of the whole run
  // In registration order, the same on all ranks. A gradient's memory is free for use between an
  // update and the next gradients.
  virtual std::span<const ParameterView> parameters() const = 0;
  // A strategy's slots are "strategy/<parameter>/<slot>".
  virtual StateBag& state() = 0;

  // Learning rate of this step, after the schedule.
  virtual double lr() const = 0;
  virtual int num_clients() const = 0;
  // Randomness of this step that all ranks share, apart from that of codecs and data.
  virtual RngStream shared_stream() const = 0;
  // State that is the same on all ranks ("the server's"), zeros at first, of the parameter's shape.
  virtual TensorView Slot(const char* name, size_t parameter, bool* created = nullptr) = 0;

  // Messages of clients, any number of times a step. When nobody's message arrives, `out` is zero
  // (for the ef21 family, H).
  virtual StatusOr<TurnsResult> Turns(const TurnsCall& call) = 0;
  // The server sends the same to all: vectors[i], the same on all ranks, goes through the server's
  // own compressor and feedback with randomness that all share, and becomes in place what clients
  // decode. Without such a compressor (always in `train`) it stays as it is.
  virtual Status Broadcast(std::span<const TensorView> vectors) = 0;

  // Gradients of all clients.
  // Forward and backward over all micro-batches of the step; communication starts during the last
  // backward.
  virtual StatusOr<double> ComputeGradients() = 0;
  // Waits for the exchange. False: skip the step. In `train`, where ranks must stay equal, some
  // rank had a non-finite gradient and all state is as before; in the lab a client whose gradient
  // is not finite is left out, and false means that nobody's arrived.
  virtual StatusOr<bool> FinishExchange() = 0;
  // Norm, clipping and the optimizer's update with the scheduled learning rate. Moments are the
  // same on all ranks.
  virtual Status ApplyUpdate() = 0;

  // Gradients of this rank alone: nothing is sent.
  virtual StatusOr<LocalGradients> ComputeLocalGradients() = 0;
  // The same norm, clipping and update; moments and the count of updates are this rank's own.
  virtual Status ApplyLocalUpdate() = 0;
  // This rank's moments start anew.
  virtual void ForgetMoments() = 0;

  // vectors[i], of parameter i's shape and dtype and in any memory, travels as its gradient would,
  // through compressor, feedback, exchange and buckets, and becomes in place what the optimizer
  // would see: the estimate of the mean over ranks. False: some rank's were not finite; vectors
  // and all state are as before. Losses of local steps travel along. At most once a step.
  virtual StatusOr<bool> Exchange(std::span<const TensorView> vectors) = 0;
  // The same in the background of local steps, of this step and later ones: what vectors point to
  // belongs to the engine until FinishStarted, which comes before any other exchange.
  virtual Status StartExchange(std::span<const TensorView> vectors) = 0;
  virtual StatusOr<bool> FinishStarted() = 0;
};

class Strategy {
 public:
  virtual ~Strategy() = default;
  virtual StatusOr<StepResult> Step(StepMachine& machine) const = 0;

  // Before the first step of a run, a resumed one too, and after each Pause.
  virtual Status Continue(StepMachine& machine) const { return OkStatus(); }
  // Before a checkpoint: parameters become what all ranks share, the state bag takes the rest.
  virtual Status Pause(StepMachine& machine) const { return OkStatus(); }

  // Checked before the first step.
  virtual Place place() const { return Place::kEverywhere; }
  // It adds up messages on its own: the mean must be that of the decoded messages, to rounding.
  // Then nothing is encoded again on the way, and feedback of the ef21 family, which returns
  // another estimate, is refused.
  virtual bool exact_mean() const { return false; }
  // What is doubtful about its constants with this compressor, a line each; asked once.
  virtual std::vector<std::string> Warnings(const TensorSpec& spec,
                                            const Compressor& compressor) const {
    return {};
  }
  // True where gradients may be sketches (core/api/sketch.h): the strategy has no use for vectors
  // in the parameters' shapes.
  virtual bool takes_sketches() const { return false; }

  // For estimates before a run: exchanges a step, and bytes of state for one parameter.
  virtual double ExchangesPerStep() const { return 1; }
  virtual int64_t StateBytes(const TensorSpec& spec) const { return 0; }
};

}  // namespace tw
