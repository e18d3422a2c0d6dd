// lgreco: each parameter's rank, density or bits at the smallest total size whose total error is
// not above that of uniform compression.
//
// L-GreCo: Markov, Alimohammadi, Frantar, Alistarh, MLSys 2024, arXiv 2210.17357.
//   minimise sum_l size(l, c_l)   subject to   sum_l err(l, c_l) <= alpha sum_l err(l, configured)
//   err(l, c) = ||G_l - decode(encode(G_l))||, or its square; G_l: mean over the last `window`
//   steps of what the compressor sees, error feedback included
// every `every` steps, over knob values from floor(gamma x configured) to ceil(beta x configured),
// by an exact dynamic program (compressors/planner/assignment.h).
// Unlike the authors' code: errors are those of each rank on its own message, root mean square over
// ranks (it takes rank 0's); every rank solves the same problem and they compare the answer (there
// rank 0 broadcasts it); nothing waits for it. Sizes are bytes on the wire.
// relative = true measures each parameter's error against its own message: an absolute budget lets
// parameters with large gradients starve the others, and Adam does not see their scale.
// State: none of its own. Left out: other periods than a fixed one.

#include <memory>

#include "compressors/planner/distribute.h"

namespace tw {
namespace {

struct LGrecoConfig {
  int64_t every = 100;
  int64_t window = 10;
  double alpha = 1.0;
  double beta = 2.0;
  double gamma = 0.5;
  int64_t options = 16;
  std::string norm = "l2";
  bool relative = false;
  std::vector<std::string> mixed;
  static FieldList<LGrecoConfig> Fields() {
    return FieldList<LGrecoConfig>()
        .Int("every", &LGrecoConfig::every, {kPlanDelay + 2, int64_t{1} << 40},
             "steps between two plans")
        .Int("window", &LGrecoConfig::window, {1, 1 << 20},
             "last steps before a plan whose messages are averaged")
        .Real("alpha", &LGrecoConfig::alpha, {0, 1e6, kOpenLow},
              "error allowed, as a multiple of that of uniform compression")
        .Real("beta", &LGrecoConfig::beta, {1, 1e6},
              "largest rank, ratio or bits, as a multiple of the configured one")
        .Real("gamma", &LGrecoConfig::gamma, {0, 1, kOpenLow},
              "smallest one, as a multiple of the configured one")
        .Int("options", &LGrecoConfig::options, {2, 256}, "values tried a parameter, at most")
        .Text("norm", &LGrecoConfig::norm, {"l2", "l2sq"},
              "the error that is added up over parameters: the norm, or its square")
        .Bool("relative", &LGrecoConfig::relative,
              "each parameter's error over the norm of its own message")
        .Texts("mixed", &LGrecoConfig::mixed, {},
               "further compressors to choose from, with their default keys");
  }
};

class LGreco : public Planner {
 public:
  static StatusOr<std::unique_ptr<Planner>> Create(const LGrecoConfig& config) {
    if (config.every <= config.window + kPlanDelay) {
      return ConfigError("planner.every = " + std::to_string(config.every) +
                         " is too short for planner.window = " + std::to_string(config.window) +
                         ": at least window + " + std::to_string(kPlanDelay + 1));
    }
    return std::unique_ptr<Planner>(new LGreco(config));
  }

  PlanWishes wishes() const override {
    return {.knob = config_.mixed.empty(),
            .from = config_.gamma,
            .to = config_.beta,
            .most = config_.options,
            .families = config_.mixed};
  }
  PlanSchedule schedule() const override {
    return {.every = config_.every, .window = config_.window, .errors = true};
  }
  StatusOr<PlanDecision> Decide(const PlanEvidence& evidence) const override {
    std::vector<int> configured;
    for (const PlanMenu& menu : evidence.menus) configured.push_back(menu.configured);
    return Distribute(evidence, configured,
                      {.squared = config_.norm == "l2sq", .relative = config_.relative},
                      config_.alpha);
  }

 private:
  explicit LGreco(const LGrecoConfig& config) : config_(config) {}
  LGrecoConfig config_;
};

TW_REGISTER(Planner, lgreco, 0, LGrecoConfig, LGreco::Create,
            "L-GreCo: fewest bytes at the error of uniform compression");

}  // namespace
}  // namespace tw
