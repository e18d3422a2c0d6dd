// none: what the config says stays.

#include <memory>

#include "core/api/planner.h"

namespace tw {
namespace {

class NoPlanner : public Planner {
 public:
  static StatusOr<std::unique_ptr<Planner>> Create(const NoConfig&) {
    return std::unique_ptr<Planner>(new NoPlanner);
  }
  PlanSchedule schedule() const override { return {}; }
  StatusOr<PlanDecision> Decide(const PlanEvidence& evidence) const override {
    return PlanDecision{{evidence.chosen.begin(), evidence.chosen.end()}, ""};
  }
};

TW_REGISTER(Planner, none, 0, NoConfig, NoPlanner::Create, "compressors stay as configured");

}  // namespace
}  // namespace tw
