#pragma once
// Planner: re-chooses, while training, how each parameter's gradient travels, from what is measured
// on the way. Planners are immutable, torch-free and know no compressor, feedback or exchange by
// name: they see menus of options with their bytes, and numbers. The engine (core/engine/
// plan_updater.h) measures, averages over ranks, asks, lets all ranks agree on the answer and puts
// it into the plan between two steps.
//
// A round, every `every` steps:   window -> errors -> Decide -> agreement -> in effect
//   window   the last `window` steps before the round: messages and gradients are added up, times
//            are kept
//   Decide   runs on the lane, off the critical path, with the same evidence on every rank; the
//            answer is a function of it alone
//   effect   a few steps later, the same step on every rank

#include <span>
#include <string>
#include <vector>

#include "core/api/compressor.h"

namespace tw {

// One way for one parameter to travel.
struct PlanOption {
  std::string label;                  // "rank 4", "topk ratio 0.01", "dense"
  const Compressor* codec = nullptr;  // that of `none` when dense
  int family = 0;                     // options of one family differ in their knob only
  double knob = 0;                    // value of the codec's knob; 0 without one
  double bytes = 0;    // handed to the transport by one rank in a step; the payload where one rank
  bool dense = false;  // no compression
};

struct PlanMenu {
  TensorSpec spec;
  std::vector<PlanOption> options;  // of each family by ascending knob
  int configured = 0;               // what the config asks for
};

// What a planner wants its menus to hold.
struct PlanWishes {
  bool knob = false;  // it has nothing to do where no compressor has one: refused at the start
  double from = 1;    // knob values between these multiples of the configured one
  double to = 1;
  int64_t most = 1;                   // at most so many of them a family
  std::vector<double> also;           // further multiples, as near as the knob allows
  std::vector<std::string> families;  // compressors, as configured by default, that join the menu
  bool dense = false;                 // so does an option that sends the parameter as it is
};

// When it is asked, and for what. Step numbers are counted from the first compressed one.
struct PlanSchedule {
  int64_t every = 0;       // steps between rounds; 0: never, there is no planner
  int64_t window = 1;      // steps measured before a round; every > window + kPlanDelay
  bool errors = false;     // of all options, on the mean message of the window
  bool gradients = false;  // norms of the sums of the window's gradients
  bool costs = false;      // once at the start: times of encoding and decoding every option, and
                           // the rate of the link
};
// The longest time from a round to its effect, in steps.
inline constexpr int64_t kPlanDelay = 4;

// Medians over the window, then means over ranks. Of a step; see StepRecord.
struct PlanTimes {
  double step_ms = 0, forward_ms = 0, backward_ms = 0, optimizer_ms = 0;
  double encode_ms = 0, exchange_ms = 0, decode_ms = 0, exposed_ms = 0;
  double wire_bytes = 0;
};

// What was measured; vectors are by menu, then by option.
struct PlanEvidence {
  int64_t steps_done = 0;
  int ranks = 1;
  std::span<const PlanMenu> menus;
  std::span<const int> chosen;              // in effect during the window
  std::vector<std::vector<double>> errors;  // ||message - decoded||^2, mean over ranks; NaN: failed
  std::vector<double> message_norms;        // ||message||^2, mean over ranks
  std::vector<double> gradient_norms;       // ||sum of the window's gradients||
  std::vector<std::vector<double>> cost_ms;  // of one step, mean over ranks
  double link_bytes_per_ms = 0;              // handed to the transport, with nothing else to do
  PlanTimes times;
  // MemorySize() numbers that outlive rounds and checkpoints; zeros at first.
  std::span<double> memory;
};

struct PlanDecision {
  std::vector<int> choice;  // an option a menu
  std::string why;          // goes into the log; empty: nothing to add
};

class Planner {
 public:
  virtual ~Planner() = default;
  virtual PlanWishes wishes() const { return {}; }
  virtual PlanSchedule schedule() const = 0;
  virtual int64_t MemorySize(std::span<const PlanMenu> menus) const { return 0; }
  // Before the first round.
  virtual int Initial(const PlanMenu& menu) const { return menu.configured; }
  virtual StatusOr<PlanDecision> Decide(const PlanEvidence& evidence) const = 0;
};

// Totals over menus: bytes of a choice, and its error sum_l sqrt(errors[l][c_l]).
double BytesOf(std::span<const PlanMenu> menus, std::span<const int> choice);
double ErrorOf(const PlanEvidence& evidence, std::span<const int> choice);

}  // namespace tw
