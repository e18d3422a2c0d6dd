#include "core/engine/step_statistics.h"

#include <algorithm>

namespace tw {
namespace {

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle),
                   values.end());
  return values[middle];
}

}  // namespace

void StepStatistics::Add(const StepRecord& record) {
  step_ms_.push_back(record.step_ms);
  exposed_ms_.push_back(record.exposed_ms);
  wire_bytes_ += static_cast<double>(record.wire_bytes);
  payload_bytes_ += static_cast<double>(record.payload_bytes);
}

void StepStatistics::Fill(TrainSummary* summary) const {
  const double steps = static_cast<double>(std::max<size_t>(step_ms_.size(), 1));
  summary->step_ms_median = Median(step_ms_);
  summary->exposed_ms_median = Median(exposed_ms_);
  summary->wire_bytes_per_step = wire_bytes_ / steps;
  summary->payload_bytes_per_step = payload_bytes_ / steps;
}

}  // namespace tw
