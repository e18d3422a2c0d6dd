#pragma once
// PlanUpdater: the engine's side of a planner (core/api/planner.h). Between steps it counts them;
// beside the steps of a window it adds up what passes; after the round it measures on the lane, in
// slices behind the buckets of several steps, adds the numbers up over ranks, asks the planner, has
// all ranks compare the answer, and some steps later puts it into the plan.
//
// Error memories are kept: they are dense and know no codec. A codec brings its own state into
// shape (Compressor::TakeOver). A parameter that changes to dense sends message and error once
// through its feedback; then its gradient travels as if nobody had asked for compression.
//
// Everything that decides is in the state bag, so a resumed run goes on with the same plans:
//   planner/<parameter>/message    fp32, sum of the window's messages / window
//   planner/<parameter>/gradient   fp32, sum of the window's gradients
//   planner/table     errors and norms measured so far          planner/memory  the planner's own
//   planner/chosen    options in effect, and which dense ones have sent their error
//   planner/next      options decided; the last number tells whether they wait
// Times are not: a planner that asks for them need not repeat itself.

#include <memory>
#include <string>
#include <vector>

#include "core/api/metrics.h"
#include "core/api/planner.h"
#include "core/engine/bucket_pipeline.h"
#include "core/engine/lane.h"

namespace tw {

// What each menu's options stand for; entry m of all three belongs together.
struct PlanChoices {
  std::vector<PlanMenu> menus;
  std::vector<std::vector<Route>> routes;  // one an option, exchange included
  std::vector<int> parameters;             // index into the plan
};

// What a round came to. Errors are sums over parameters of ||message - decoded||, 0 where the
// planner does not ask for them.
struct PlanRound {
  int64_t step = 0;  // steps done when its window ended
  double bytes_before = 0, bytes_after = 0, bytes_configured = 0;
  double error_before = 0, error_after = 0, error_configured = 0;
  size_t changed = 0;     // parameters
  size_t at_floor = 0;    // parameters whose option is the smallest there is
  double measure_ms = 0;  // of lane time
  double decide_ms = 0;   // the planner's, of that
  std::string why;
};

struct PlanUpdaterParts {
  const Planner* planner = nullptr;
  std::string name;  // for the log
  const PlanChoices* choices = nullptr;
  Plan* plan = nullptr;
  StateBag* state = nullptr;  // restored, if the run is a resumed one
  Communicator* comm = nullptr;
  Lane* lane = nullptr;
  uint64_t seed = 1;
};

class PlanUpdater : public GradientObserver {
 public:
  // Puts the options in effect after `steps_done` steps into the plan. DataError when the state is
  // that of other menus. REQUIRES: schedule().every > 0; all parts outlive it.
  static StatusOr<std::unique_ptr<PlanUpdater>> Create(const PlanUpdaterParts& parts,
                                                       int64_t steps_done);
  ~PlanUpdater() override;

  // Main thread, after each step and before its checkpoint.
  Status EndStep(const StepRecord& record);

  void OnMessage(int parameter, const Message& message) override;
  void OnEstimate(int parameter, TensorView gradient) override;

  // Rounds that are over, and the last one.
  int64_t num_rounds() const { return num_rounds_; }
  const PlanRound& last_round() const { return last_round_; }

 private:
  struct Sum {  // one parameter's memory of a window
    std::string name;
    TensorView view;
  };

  explicit PlanUpdater(const PlanUpdaterParts& parts);
  void TakeSlots();
  int64_t Phase() const;  // steps since the last round; negative before the first window can start
  bool InWindow() const;  // whether the next step is measured
  void StartWindow();
  Status MeasureCosts();
  Status MeasureLink();
  Status MeasureSlice(int64_t slice);
  Status MeasureMenu(size_t menu);
  CodecContext ScratchContext(size_t menu, const StateScope& state);
  Status Conclude();
  StatusOr<PlanEvidence> Gather();
  PlanRound Compare(const PlanEvidence& evidence, const PlanDecision& decision) const;
  std::string Line() const;
  void Apply();
  void PutIntoPlan(size_t menu);
  void SettleDense();

  const PlanUpdaterParts parts_;
  const PlanSchedule schedule_;
  const std::vector<PlanMenu>& menus_;
  int64_t slices_ = 1;
  int64_t origin_ = 0;  // first compressed step
  int64_t done_ = 0;
  bool observing_ = false;
  bool working_ = false;      // the lane has a slice to measure
  std::vector<int> menu_of_;  // by parameter; -1: none
  std::vector<Sum> messages_, gradients_;
  std::vector<size_t> row_;  // of each menu in the table: errors, then the norm of the message
  std::span<double> table_, memory_;
  std::span<int32_t> chosen_, flushed_, next_;
  std::vector<std::vector<double>> cost_ms_;
  double link_bytes_per_ms_ = 0;
  std::vector<StepRecord> records_;  // of the window
  StateBag scratch_state_;
  Workspace scratch_;
  double measure_ms_ = 0;
  PlanRound round_;  // the one that waits in next_; written on the lane
  int64_t num_rounds_ = 0;
  PlanRound last_round_;
};

}  // namespace tw
