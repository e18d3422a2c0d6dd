#pragma once
// Counts steps that were left out, and says when there were too many in a row. Of skips here and of
// those everywhere each has its count: a round of local steps that is thrown away follows local
// steps that were fine.

#include "core/api/strategy.h"

namespace tw {

class SkipCount {
 public:
  // `step` is 0-based. The error after `most` in a row of a kind is the user's numbers' (exit 5).
  Status Add(const StepResult& result, int64_t step, int64_t most);
  int64_t total() const { return total_; }

 private:
  int64_t here_ = 0, everywhere_ = 0;  // in a row
  int64_t total_ = 0;
};

}  // namespace tw
