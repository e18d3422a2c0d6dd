#pragma once
// The last losses of a run, in the state bag: a resumed run reports the final loss of the unbroken
// one. In local steps each rank knows its own losses only; they wait here until an exchange takes
// them along. Used from the main thread.

#include <span>
#include <vector>

#include "core/base/state_bag.h"

namespace tw {

class LossLog {
 public:
  // `state` outlives the log.
  explicit LossLog(StateBag* state) : state_(state) {}

  // The mean over ranks of a step that counts.
  void Add(double mean);

  // This rank's loss in a local step; `counts` false when the step was skipped here.
  void AddOwn(double own, bool counts);
  // What the other ranks need of the waiting losses, which wait no longer: sums over ranks go to
  // Settle.
  std::vector<double> TakeWaiting();
  // Adds the means over ranks of losses that were taken; returns the newest step's, or `otherwise`
  // when no rank had one.
  double Settle(std::span<const double> sums, double otherwise);

  // Mean of the last 20 steps that count, those before a resume too; 0 without any.
  double FinalLoss() const;

 private:
  StateBag* state_;
};

}  // namespace tw
