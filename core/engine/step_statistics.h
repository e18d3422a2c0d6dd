#pragma once
// What the steps of a run come to: medians of times, means of bytes.

#include <vector>

#include "core/api/metrics.h"

namespace tw {

struct TrainSummary {
  int64_t steps = 0;
  int64_t tokens = 0;
  int64_t skipped = 0;
  double final_loss = 0;  // mean of the last 20 steps, over ranks
  double wall_s = 0;
  double step_ms_median = 0;
  double exposed_ms_median = 0;
  double wire_bytes_per_step = 0;
  double payload_bytes_per_step = 0;
  int64_t dense_bytes_per_step = 0;
};

class StepStatistics {
 public:
  void Add(const StepRecord& record);
  // Sets the medians and the means.
  void Fill(TrainSummary* summary) const;

 private:
  std::vector<double> step_ms_, exposed_ms_;
  double wire_bytes_ = 0, payload_bytes_ = 0;
};

}  // namespace tw
