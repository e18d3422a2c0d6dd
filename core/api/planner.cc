#include "core/api/planner.h"

#include <cmath>

namespace tw {

double BytesOf(std::span<const PlanMenu> menus, std::span<const int> choice) {
  double sum = 0;
  for (size_t m = 0; m < menus.size(); ++m) {
    sum += menus[m].options[static_cast<size_t>(choice[m])].bytes;
  }
  return sum;
}

double ErrorOf(const PlanEvidence& evidence, std::span<const int> choice) {
  double sum = 0;
  for (size_t m = 0; m < evidence.errors.size(); ++m) {
    sum += std::sqrt(evidence.errors[m][static_cast<size_t>(choice[m])]);
  }
  return sum;
}

}  // namespace tw
