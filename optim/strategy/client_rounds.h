#pragma once
// What the federated strategies share: a round of S of n clients, K local steps each, one message
// up, one step of the server. With g_i the client's gradients and eta the run's learning rate after
// its schedule:
//   S clients, drawn without replacement by randomness that all ranks share
//   y = x;  K times: y <- y - eta*(g_i(y) - c_i + c)         own batches 0 .. K-1 of the step
//   G = mean of the K gradients g_i                           (x - y)/(eta*K) = G - c_i + c
//   send the variant's message of G, through compressor and feedback;  m = mean of what arrives
//   x <- optimizer(x, eta_g*K*(m + c))       plain steps: x - eta_g*eta*K*(m + c)
//   c_i <- c_i + decode(own message);   c <- c + (arrived/n)*m
// Without control variates c_i = c = 0 and there is no such state. G is summed from gradients, not
// formed from x - y: one local step and eta_g = 1 then give the bits of strategy sync.
//
// A client that finds something not finite in any of its K steps, or whose message is not, is
// dropped by everybody: its c_i stays and it is not in m, so c stays the mean of all c_i; every
// client that arrives has made K steps. When nobody arrives x stays. In `train` all ranks take part
// (participation = 1) and are dropped together, since replicas must stay equal.
//
// The optimizer makes the server's step; with momentum it is FedAvgM, with adamw FedAdam (Reddi et
// al., arXiv 2003.00295).
// State: c and c_i, shaped as the parameter, in units of the gradient; scafcom adds v_i.

#include <memory>
#include <vector>

#include "core/api/strategy.h"
#include "core/base/config_fields.h"
#include "core/base/workspace.h"

namespace tw {

// The keys of all of them.
struct ClientRoundsConfig {
  int64_t local_steps = 10;
  double global_lr = 1;
  double participation = 1;

  template <class C>
  static void AddFields(FieldList<C>* fields) {
    fields
        ->Int("local_steps", &C::local_steps, {1, 65535},
              "gradient steps of a client in a round, with the run's learning rate")
        .Real("global_lr", &C::global_lr, {0, 1e3, kOpenLow},
              "the server's step, in units of what the mean client has moved")
        .Real("participation", &C::participation, {0, 1, kOpenLow},
              "share of the clients that take part in a round; below 1 in the lab only");
  }
};

class ClientRounds : public Strategy {
 public:
  StatusOr<StepResult> Step(StepMachine& machine) const override;
  // Or c would not stay the mean of the c_i.
  bool exact_mean() const override { return control_; }
  int64_t StateBytes(const TensorSpec& spec) const override;

 protected:
  // With control variates or without.
  ClientRounds(const ClientRoundsConfig& config, bool control)
      : config_(config), control_(control) {}
  // Turns G, in `grad`, into the message. Runs in the client's turn.
  virtual void MakeMessage(Client& client, size_t parameter, TensorView grad) const {}

  static TensorView ControlOf(Client& client, size_t parameter) {
    return client.Slot("c_i", parameter);
  }

 private:
  Status LocalSteps(Client& client, double lr, std::span<const TensorView> control) const;

  ClientRoundsConfig config_;
  bool control_;
  // Memory, not state: nothing in it outlives a turn. One thread uses a strategy.
  mutable Workspace scratch_;
  mutable std::vector<int> drawn_;
};

}  // namespace tw
