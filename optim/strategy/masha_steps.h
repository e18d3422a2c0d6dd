#pragma once
// What masha1 and masha2 share (Beznosikov, Richtarik, Diskin, Ryabinin, Gasnikov, "Distributed
// methods with compressed communication for solving variational inequalities", NeurIPS 2022, arXiv
// 2110.03313): extragradient steps around a reference point w, at which everybody's operator is
// known. Compressed is only what the operator has changed by since then, and that goes to 0 with
// the distance to the solution. With gamma the run's learning rate after its schedule:
//   at first   w = z;  clients send F_m(w) dense, F = mean F_m(w)
//   every step zb = tau*z + (1-tau)*w;  half = zb - gamma*F
//              clients send C(F_m(half) - F_m(w));  G = C_server(mean of what arrives)
//              z <- optimizer(zb, F + G)            plain steps: half - gamma*G
//              a coin that all ranks share, heads with chance 1 - tau:
//              w = z;  clients send F_m(w) dense, F = mean F_m(w)
// C is the run's compressor with its feedback, C_server what StepMachine::Broadcast does. What the
// paper calls e_m and e are the memories of feedback ef14 on either side, here in units of the
// gradient (equal at a constant learning rate). tau = 0 without compression is extragradient.
//
// reference = "kept": a client keeps F_m(w). "again": it computes F_m(w) a second time, on the
// batch of the step, so that the difference is of one batch (VR-MASHA); F is then worth having of
// more batches than one (reference_batches).
//
// Partial participation: S of n clients, drawn anew every step, send differences; at a new w all
// do. A client whose message is not finite, or who is dropped at a new w, keeps the F_m that it
// last sent, and F stays the mean of all those: what is sent dense is the change. With "again"
// nothing is kept, and F is the mean over those that arrived. In `train` all ranks take part and
// are dropped together.
//
// State: w and F, the same on all ranks; F_m (with "kept"), a client's own; all shaped as the
// parameter, w in its units, the others in those of the gradient. Left out: proximal steps.

#include <vector>

#include "core/api/strategy.h"
#include "core/base/config_fields.h"
#include "core/base/workspace.h"

namespace tw {

// The keys of both.
struct MashaConfig {
  double tau = 0.9;
  std::string reference = "kept";
  int64_t reference_batches = 1;
  double participation = 1;

  static FieldList<MashaConfig> Fields() {
    return FieldList<MashaConfig>()
        .Real("tau", &MashaConfig::tau, {0, 1, kOpenHigh},
              "weight of the point against the reference point; a step ends with a new reference "
              "and a dense exchange with chance 1 - tau, well chosen as what compression leaves")
        .Text("reference", &MashaConfig::reference, {"kept", "again"},
              "gradient at the reference point: kept from when it was new, or computed again on "
              "each step's batch")
        .Int("reference_batches", &MashaConfig::reference_batches, {1, 65535},
             "batches of the dense gradient at a new reference point")
        .Real("participation", &MashaConfig::participation, {0, 1, kOpenLow},
              "share of the clients that send in a step; below 1 in the lab only");
  }
};

class MashaSteps : public Strategy {
 public:
  StatusOr<StepResult> Step(StepMachine& machine) const override;
  double ExchangesPerStep() const override { return 2 - config_.tau; }
  int64_t StateBytes(const TensorSpec& spec) const override;

 protected:
  explicit MashaSteps(const MashaConfig& config) : config_(config) {}

 private:
  bool kept() const { return config_.reference == "kept"; }
  StatusOr<TurnsResult> Differences(StepMachine& machine) const;
  // False: nobody arrived, and the reference stays what it was.
  StatusOr<bool> NewReference(StepMachine& machine) const;
  TensorView Scratch(int slot, TensorView like) const;

  MashaConfig config_;
  // Memory, not state: nothing in it outlives a turn. One thread uses a strategy.
  mutable Workspace scratch_;
  mutable std::vector<int> drawn_;
};

}  // namespace tw
