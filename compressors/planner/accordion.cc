// accordion: more bytes for a parameter while its gradient changes, fewer while it does not.
//
// Accordion: Agarwal, Wang, Lee, Venkataraman, Papailiopoulos, MLSys 2021, arXiv 2010.16248.
//   s_l = norm of the sum of the window's gradients of parameter l, as the optimizer sees them
//   critical   | s_l(previous) - s_l | / s_l(previous) >= eta
//   knob       boost x configured while critical, else as configured
// A run starts critical, and stays so until two windows can be compared.
// distribute = true puts L-GreCo (arXiv 2210.17357) on top: the levels give the error budget,
// sum_l err(l, level_l), and the fewest bytes within it are sent
// (compressors/planner/distribute.h). The estimates of ef14 add up to the gradients up to the error
// memory: a window of many steps sees the gradient through the compression. State: s_l(previous)
// and whether l is critical. Left out: the return to the critical level when the learning rate
// falls; batch sizes.

#include <cmath>
#include <memory>

#include "compressors/planner/distribute.h"

namespace tw {
namespace {

struct AccordionConfig {
  int64_t every = 100;
  int64_t window = 50;
  double eta = 0.5;
  double boost = 4.0;
  bool distribute = false;
  double alpha = 1.0;
  double beta = 2.0;
  double gamma = 0.5;
  static FieldList<AccordionConfig> Fields() {
    return FieldList<AccordionConfig>()
        .Int("every", &AccordionConfig::every, {kPlanDelay + 2, int64_t{1} << 40},
             "steps between two plans")
        .Int("window", &AccordionConfig::window, {1, int64_t{1} << 40},
             "last steps before a plan whose gradients are added up")
        .Real("eta", &AccordionConfig::eta, {0, 1e6, kOpenLow},
              "relative change of the gradient's norm that counts as critical")
        .Real("boost", &AccordionConfig::boost, {1, 1e6, kOpenLow},
              "rank, ratio or bits while critical, as a multiple of the configured one")
        .Bool("distribute", &AccordionConfig::distribute,
              "L-GreCo on top: the two levels give the error budget")
        .Real("alpha", &AccordionConfig::alpha, {0, 1e6, kOpenLow},
              "with distribute: error allowed, as a multiple of that of the levels")
        .Real("beta", &AccordionConfig::beta, {1, 1e6},
              "with distribute: largest knob, as a multiple of the critical one")
        .Real("gamma", &AccordionConfig::gamma, {0, 1, kOpenLow},
              "with distribute: smallest knob, as a multiple of the configured one");
  }
};

class Accordion : public Planner {
 public:
  static StatusOr<std::unique_ptr<Planner>> Create(const AccordionConfig& config) {
    if (config.every <= config.window + kPlanDelay) {
      return ConfigError("planner.every = " + std::to_string(config.every) +
                         " is too short for planner.window = " + std::to_string(config.window) +
                         ": at least window + " + std::to_string(kPlanDelay + 1));
    }
    return std::unique_ptr<Planner>(new Accordion(config));
  }

  PlanWishes wishes() const override {
    PlanWishes wishes{.knob = true, .also = {config_.boost}};
    if (config_.distribute) {
      wishes.from = config_.gamma;
      wishes.to = config_.boost * config_.beta;
      wishes.most = 16;
    }
    return wishes;
  }
  PlanSchedule schedule() const override {
    return {.every = config_.every,
            .window = config_.window,
            .errors = config_.distribute,
            .gradients = true};
  }
  int64_t MemorySize(std::span<const PlanMenu> menus) const override {
    return static_cast<int64_t>(menus.size()) + 1;  // previous norms; then rounds so far
  }
  int Initial(const PlanMenu& menu) const override { return Level(menu, true); }

  StatusOr<PlanDecision> Decide(const PlanEvidence& evidence) const override {
    const size_t n = evidence.menus.size();
    const bool compared = evidence.memory[n] > 0;
    std::vector<int> level;
    size_t critical = 0;
    for (size_t m = 0; m < n; ++m) {
      const double before = evidence.memory[m], now = evidence.gradient_norms[m];
      // A gradient that was zero and is not any more has changed.
      const bool changes =
          !compared || (before > 0 ? std::abs(before - now) / before >= config_.eta : now > 0);
      evidence.memory[m] = now;
      critical += changes;
      level.push_back(Level(evidence.menus[m], changes));
    }
    evidence.memory[n] += 1;
    PlanDecision decision{level, ""};
    if (config_.distribute) decision = Distribute(evidence, level, {}, config_.alpha);
    decision.why = std::to_string(critical) + " of " + std::to_string(n) +
                   " parameters are critical" + (decision.why.empty() ? "" : "; " + decision.why);
    return decision;
  }

 private:
  explicit Accordion(const AccordionConfig& config) : config_(config) {}

  // The option nearest to the level; `boost` may lie beyond the knob's range.
  int Level(const PlanMenu& menu, bool critical) const {
    if (!critical) return menu.configured;
    const double wanted = config_.boost * menu.options[static_cast<size_t>(menu.configured)].knob;
    int best = menu.configured;
    const auto distance = [&](int c) {
      return std::abs(menu.options[static_cast<size_t>(c)].knob - wanted);
    };
    for (int c = 0; c < static_cast<int>(menu.options.size()); ++c) {
      if (distance(c) < distance(best)) best = c;
    }
    return best;
  }

  AccordionConfig config_;
};

TW_REGISTER(Planner, accordion, 0, AccordionConfig, Accordion::Create,
            "two levels by the change of the gradient's norm; L-GreCo on top if asked for");

}  // namespace
}  // namespace tw
