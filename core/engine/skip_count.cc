#include "core/engine/skip_count.h"

#include <string>

#include "core/base/log.h"

namespace tw {

Status SkipCount::Add(const StepResult& result, int64_t step, int64_t most) {
  int64_t* count = nullptr;
  if (result.skip == Skip::kHere) count = &here_;
  if (result.skip == Skip::kEverywhere) count = &everywhere_;
  if (result.skip != Skip::kHere) here_ = 0;
  if (result.skip != Skip::kEverywhere && result.replicas_equal) everywhere_ = 0;
  if (!count) return OkStatus();
  ++total_;
  const std::string where = "step " + std::to_string(step) + ": ";
  LogWarning(where + result.why);
  if (++*count < most) return OkStatus();
  return NumbersError(
      where + std::to_string(*count) +
      " steps in a row had a non-finite gradient (train.max_skipped = " + std::to_string(most) +
      "); a smaller optimizer.lr or train.grad_clip may help");
}

}  // namespace tw
