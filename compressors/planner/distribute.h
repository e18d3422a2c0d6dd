#pragma once
// From evidence to an assignment problem: what planners that distribute an error budget share.

#include <cmath>

#include "compressors/planner/assignment.h"
#include "core/api/planner.h"

namespace tw {

struct ErrorMeasure {
  bool squared = false;   // sum of ||error||^2 instead of sum of ||error||
  bool relative = false;  // each parameter's error over the norm of its own message
};

// One item a menu; `level[m]` is the option that stands for uniform compression.
inline std::vector<AssignmentItem> ItemsOf(const PlanEvidence& evidence, std::span<const int> level,
                                           const ErrorMeasure& measure) {
  std::vector<AssignmentItem> items(evidence.menus.size());
  for (size_t m = 0; m < items.size(); ++m) {
    items[m].uniform = level[m];
    for (const PlanOption& option : evidence.menus[m].options) {
      items[m].size.push_back(option.bytes);
    }
    const double norm = measure.relative ? evidence.message_norms[m] : 1.0;
    for (double error : evidence.errors[m]) {
      if (norm > 0) error /= norm;
      items[m].error.push_back(measure.squared ? error : std::sqrt(error));
    }
  }
  return items;
}

// The smallest choice whose error is at most alpha times that of `level`.
inline PlanDecision Distribute(const PlanEvidence& evidence, std::span<const int> level,
                               const ErrorMeasure& measure, double alpha) {
  const auto items = ItemsOf(evidence, level, measure);
  Assignment found = Assign(items, alpha * UniformError(items));
  PlanDecision decision{std::move(found.choice), ""};
  if (!found.feasible) decision.why = "no assignment is within the budget: uniform";
  return decision;
}

}  // namespace tw
