// cost_model: does compressing pay on this link, for this parameter, and how much of it?
//
// Trials of `trial_steps` steps, one setting after another; the median step time of each, averaged
// over ranks, is what counts:
//   as configured;  with levels = true the smallest and the largest knob;  dense, unless its
//   prediction is `hopeless` times slower than the best so far;  mixed, each parameter as predicted
//   to be faster, where that is none of the others
// The prediction, for a choice c of options:
//   rate     bytes / ms: of the link alone, measured before the first step, or of the trial that
//            sent most if that is more; optimistic, since a trial tells the truth and a prediction
//            only decides whether there is one. When the link has changed, what was measured before
//            the first step changes by the same factor
//   lane(c)  = sum over parameters of cost(option) + bytes(option) / rate
//   hidden   = encode + exchange + decode - exposed, of the trial that hid most
//   step(c)  = step - exposed of the fastest trial + max(0, lane(c) - hidden)
//   cost     encoding and decoding, measured for each option alone before the first step
// Settings within `margin` of the fastest count as equal, and the one that sends most of them is
// taken: it loses least. It stays until bytes / ms of exchange differ from those of its own trial
// by more than `recheck` times, and the time of the exchange by more than 5 % of a step, two
// looks in a row: short exchanges take as long as their peers let them wait, and say little of the
// link. Then the trials start again. Every number is a mean over ranks, so all ranks decide alike.
// They are times: two runs need not choose the same. To repeat one, write its choice (the log,
// "plan" in summary.json) as [[compressor.rule]]s without a planner.
// State: the trial under way, what the earlier ones measured, and doubts of the link.
// Left out: encoding threads that compete with backward for cores (trials show it, predictions do
// not); latency a message.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <type_traits>

#include "absl/strings/str_format.h"
#include "core/api/planner.h"

namespace tw {
namespace {

struct CostModelConfig {
  int64_t trial_steps = 10;
  bool levels = false;
  double beta = 2.0;
  double gamma = 0.5;
  double hopeless = 3.0;
  double margin = 0.02;
  double recheck = 2.0;
  static FieldList<CostModelConfig> Fields() {
    return FieldList<CostModelConfig>()
        .Int("trial_steps", &CostModelConfig::trial_steps, {4, 1 << 20},
             "steps a setting is tried; afterwards, steps between two looks at the link")
        .Bool("levels", &CostModelConfig::levels,
              "try the smallest and the largest rank, ratio or bits, too")
        .Real("beta", &CostModelConfig::beta, {1, 1e6},
              "with levels: largest one, as a multiple of the configured one")
        .Real("gamma", &CostModelConfig::gamma, {0, 1, kOpenLow},
              "with levels: smallest one, as a multiple of the configured one")
        .Real("hopeless", &CostModelConfig::hopeless, {1, 1e9},
              "dense is not tried where it is predicted so many times slower")
        .Real(
            "margin", &CostModelConfig::margin, {0, 1},
            "settings whose steps differ by less count as equal: the one that sends most is taken")
        .Real("recheck", &CostModelConfig::recheck, {1, 1e9, kOpenLow},
              "try again when the link's rate has changed by this factor");
  }
};

enum Setting : int { kConfigured, kSmallest, kLargest, kDense, kMixed, kNumSettings };
constexpr const char* kNames[] = {"as configured", "smallest knob", "largest knob", "dense",
                                  "mixed"};

// Of a step, and looks in a row: what makes the link another one.
constexpr double kShiftThatMatters = 0.05;
constexpr double kLooks = 2;

// What a trial measured, as it lies in the planner's memory.
struct Trial {
  double done;
  double step_ms;
  double exposed_ms;
  double lane_ms;
  double exchange_ms;
  double wire_bytes;
  double rate() const { return exchange_ms > 0 ? wire_bytes / exchange_ms : 0; }
};
// All zeros is a run that begins.
struct Memory {
  double setting;  // under trial, or settled on
  double settled;
  double doubts;   // looks in a row that found another link
  double changes;  // log of what the link's rate was multiplied by since the first step
  Trial trials[kNumSettings];
};
static_assert(std::is_trivial_v<Memory> && sizeof(Memory) % sizeof(double) == 0);

class CostModel : public Planner {
 public:
  static StatusOr<std::unique_ptr<Planner>> Create(const CostModelConfig& config) {
    return std::unique_ptr<Planner>(new CostModel(config));
  }

  PlanWishes wishes() const override {
    PlanWishes wishes{.dense = true};
    if (config_.levels) wishes.also = {config_.gamma, config_.beta};
    return wishes;
  }
  // A setting is in effect two steps after the round before, and its first step is not counted.
  PlanSchedule schedule() const override {
    return {.every = config_.trial_steps, .window = config_.trial_steps - 2, .costs = true};
  }
  int64_t MemorySize(std::span<const PlanMenu>) const override {
    return static_cast<int64_t>(sizeof(Memory) / sizeof(double));
  }

  StatusOr<PlanDecision> Decide(const PlanEvidence& evidence) const override {
    Memory memory{};
    std::memcpy(&memory, evidence.memory.data(), sizeof(memory));
    PlanDecision decision = memory.settled ? Watch(evidence, &memory) : Next(evidence, &memory);
    std::memcpy(evidence.memory.data(), &memory, sizeof(memory));
    return decision;
  }

 private:
  explicit CostModel(const CostModelConfig& config) : config_(config) {}

  static Trial Measured(const PlanTimes& t) {
    return {1,
            t.step_ms,
            t.exposed_ms,
            t.encode_ms + t.exchange_ms + t.decode_ms,
            t.exchange_ms,
            t.wire_bytes};
  }

  // Records the trial that has ended and chooses the next, or settles.
  PlanDecision Next(const PlanEvidence& evidence, Memory* memory) const {
    const int ended = static_cast<int>(memory->setting);
    memory->trials[ended] = Measured(evidence.times);
    std::string why = absl::StrFormat("%s: %.4g ms a step measured", kNames[ended],
                                      memory->trials[ended].step_ms);
    for (int next = ended + 1; next < kNumSettings; ++next) {
      const std::vector<int> choice = ChoiceOf(next, evidence, *memory);
      if (!IsNew(choice, next, evidence, *memory)) continue;
      const double predicted = Predict(choice, evidence, *memory);
      const double best = memory->trials[Best(*memory)].step_ms;
      if (next == kDense && predicted > config_.hopeless * best) {
        why += absl::StrFormat("; dense is not tried: %.4g ms predicted", predicted);
        continue;
      }
      if (next == kMixed && predicted >= best) continue;
      memory->setting = next;
      return {choice,
              why + absl::StrFormat("; now trying %s, %.4g ms predicted", kNames[next], predicted)};
    }
    return Settle(evidence, memory, why);
  }

  PlanDecision Settle(const PlanEvidence& evidence, Memory* memory, std::string why) const {
    const double fastest = memory->trials[Best(*memory)].step_ms;
    int best = Best(*memory);
    for (int s = 0; s < kNumSettings; ++s) {
      const Trial& trial = memory->trials[s];
      if (trial.done && trial.step_ms <= fastest * (1 + config_.margin) &&
          trial.wire_bytes > memory->trials[best].wire_bytes) {
        best = s;
      }
    }
    // `mixed` is what was tried, not what the model would say now; it is always the last trial.
    std::vector<int> choice = best == static_cast<int>(memory->setting)
                                  ? std::vector<int>(evidence.chosen.begin(), evidence.chosen.end())
                                  : ChoiceOf(best, evidence, *memory);
    std::string others;
    for (int s = 0; s < kNumSettings; ++s) {
      if (s == best || !memory->trials[s].done) continue;
      others += absl::StrFormat("%s%.4g ms %s", others.empty() ? "" : ", ",
                                memory->trials[s].step_ms, kNames[s]);
    }
    const Trial& trial = memory->trials[best];
    why += absl::StrFormat("; %s is %s here: %.4g ms a step against %s", kNames[best],
                           trial.step_ms > fastest ? "as fast as any" : "faster", trial.step_ms,
                           others.empty() ? "nothing else tried" : others);
    why += absl::StrFormat(" (link %.4g MB/s; communication %.4g ms on the lane, %.4g ms exposed)",
                           RateOf(evidence, *memory) / 1e3, trial.lane_ms, trial.exposed_ms);
    memory->setting = best;
    memory->settled = 1;
    return {std::move(choice), std::move(why)};
  }

  // The link as it is now against the link of the trial.
  PlanDecision Watch(const PlanEvidence& evidence, Memory* memory) const {
    PlanDecision same{{evidence.chosen.begin(), evidence.chosen.end()}, ""};
    const double was = memory->trials[static_cast<int>(memory->setting)].rate();
    const double now = Measured(evidence.times).rate();
    if (!(was > 0) || !(now > 0)) return same;  // one rank: there is no link
    const Trial& trial = memory->trials[static_cast<int>(memory->setting)];
    const double shift = std::abs(evidence.times.exchange_ms - trial.exchange_ms);
    const bool other_link = now > was * config_.recheck || was > now * config_.recheck;
    if (!other_link || shift < kShiftThatMatters * trial.step_ms) {
      memory->doubts = 0;
      return same;
    }
    if (++memory->doubts < kLooks) return same;
    const double changes = memory->changes + std::log(now / was);
    *memory = {};
    memory->changes = changes;
    return {ChoiceOf(kConfigured, evidence, *memory),
            absl::StrFormat("the link has changed, %.4g -> %.4g MB/s: trying again", was / 1e3,
                            now / 1e3)};
  }

  static int Best(const Memory& memory) {
    int best = kConfigured;
    for (int s = 0; s < kNumSettings; ++s) {
      const Trial& trial = memory.trials[s];
      if (trial.done && trial.step_ms < memory.trials[best].step_ms) best = s;
    }
    return best;
  }
  // Bytes a ms.
  static double RateOf(const PlanEvidence& evidence, const Memory& memory) {
    const Trial* most = &memory.trials[kConfigured];
    for (const Trial& trial : memory.trials) {
      if (trial.done && trial.wire_bytes > most->wire_bytes) most = &trial;
    }
    return std::max(most->rate(), evidence.link_bytes_per_ms * std::exp(memory.changes));
  }

  // Lane time of one option.
  static double LaneMs(const PlanEvidence& evidence, const Memory& memory, size_t m, size_t c) {
    const double rate = RateOf(evidence, memory);
    const double wire = rate > 0 ? evidence.menus[m].options[c].bytes / rate : 0;
    return evidence.cost_ms[m][c] + wire;
  }
  double Predict(const std::vector<int>& choice, const PlanEvidence& evidence,
                 const Memory& memory) const {
    double lane = 0, hidden = 0;
    for (size_t m = 0; m < choice.size(); ++m) {
      lane += LaneMs(evidence, memory, m, static_cast<size_t>(choice[m]));
    }
    for (const Trial& t : memory.trials) {
      if (t.done) hidden = std::max(hidden, t.lane_ms - t.exposed_ms);
    }
    const Trial& best = memory.trials[Best(memory)];
    return best.step_ms - best.exposed_ms + std::max(0.0, lane - hidden);
  }

  std::vector<int> ChoiceOf(int setting, const PlanEvidence& evidence, const Memory& memory) const {
    std::vector<int> choice;
    for (size_t m = 0; m < evidence.menus.size(); ++m) {
      const PlanMenu& menu = evidence.menus[m];
      int chosen = menu.configured;
      for (size_t c = 0; c < menu.options.size(); ++c) {
        const PlanOption &option = menu.options[c],
                         &best = menu.options[static_cast<size_t>(chosen)];
        const bool better = setting == kSmallest  ? !option.dense && option.knob < best.knob
                            : setting == kLargest ? !option.dense && option.knob > best.knob
                            : setting == kDense   ? option.dense
                            : setting == kMixed
                                ? LaneMs(evidence, memory, m, c) <
                                      LaneMs(evidence, memory, m, static_cast<size_t>(chosen))
                                : false;
        if (better) chosen = static_cast<int>(c);
      }
      choice.push_back(chosen);
    }
    return choice;
  }
  // Not what a trial before it had.
  bool IsNew(const std::vector<int>& choice, int setting, const PlanEvidence& evidence,
             const Memory& memory) const {
    for (int s = 0; s < setting; ++s) {
      if (ChoiceOf(s, evidence, memory) == choice) return false;
    }
    return true;
  }

  CostModelConfig config_;
};

TW_REGISTER(Planner, cost_model, 0, CostModelConfig, CostModel::Create,
            "tries, predicts and keeps what makes the shortest step; says when dense is faster");

}  // namespace
}  // namespace tw
