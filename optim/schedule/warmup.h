#pragma once
// Linear warm-up, common to all schedules: step s of the first `warmup_steps` takes (s + 1) /
// warmup_steps, so that no step is spent at a rate of 0 and the last of them is already full.

#include <algorithm>
#include <cstdint>

namespace tw {

inline double WarmupFactor(int64_t step, int64_t warmup_steps) {
  return step < warmup_steps ? static_cast<double>(step + 1) / static_cast<double>(warmup_steps)
                             : 1.0;
}

// How far `step` is between `begin` (0) and `end` (1). The last step of a run lies just before
// `end`. An empty stretch counts as not begun.
inline double Progress(int64_t step, int64_t begin, int64_t end) {
  if (step <= begin || end <= begin) return 0.0;
  return std::min(1.0, static_cast<double>(step - begin) / static_cast<double>(end - begin));
}

}  // namespace tw
