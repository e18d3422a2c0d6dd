#include "core/engine/loss_log.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace tw {
namespace {

constexpr int64_t kSteps = 20;

// Two rings. Of the waiting losses there are two numbers a step: the loss and 1, or twice 0.
constexpr char kLosses[] = "trainer/losses";
constexpr char kCount[] = "trainer/loss_count";
constexpr char kWaiting[] = "trainer/own_losses";
constexpr char kWaitingCount[] = "trainer/own_loss_count";

double* Numbers(StateBag& state, const char* name, int64_t count, Reshard reshard) {
  return static_cast<double*>(state.Slot(name, {count}, DType::kF64, reshard).data);
}
int64_t& Counter(StateBag& state, const char* name) {
  return *static_cast<int64_t*>(state.Slot(name, {1}, DType::kI64, Reshard::kReplicated).data);
}

}  // namespace

void LossLog::Add(double mean) {
  double* ring = Numbers(*state_, kLosses, kSteps, Reshard::kReplicated);
  ring[Counter(*state_, kCount)++ % kSteps] = mean;
}

void LossLog::AddOwn(double own, bool counts) {
  double* ring = Numbers(*state_, kWaiting, 2 * kSteps, Reshard::kKeepMean);
  const int64_t at = Counter(*state_, kWaitingCount)++ % kSteps;
  ring[2 * at] = counts ? own : 0;
  ring[2 * at + 1] = counts ? 1 : 0;
}

std::vector<double> LossLog::TakeWaiting() {
  std::vector<double> out;
  const int64_t count = std::exchange(Counter(*state_, kWaitingCount), 0);
  const double* ring = Numbers(*state_, kWaiting, 2 * kSteps, Reshard::kKeepMean);
  for (int64_t i = std::max<int64_t>(0, count - kSteps); i < count; ++i) {
    out.push_back(ring[2 * (i % kSteps)]);
    out.push_back(ring[2 * (i % kSteps) + 1]);
  }
  return out;
}

double LossLog::Settle(std::span<const double> sums, double otherwise) {
  double newest = otherwise;
  for (size_t i = 0; i + 1 < sums.size(); i += 2) {
    newest = sums[i + 1] > 0 ? sums[i] / sums[i + 1] : otherwise;
    if (sums[i + 1] > 0) Add(newest);
  }
  return newest;
}

double LossLog::FinalLoss() const {
  const StateSlot* count = state_->Find(kCount);
  if (!count) return 0;
  const auto* ring = static_cast<const double*>(state_->Find(kLosses)->view.data);
  const int64_t kept = std::min(*static_cast<const int64_t*>(count->view.data), kSteps);
  return kept > 0 ? std::accumulate(ring, ring + kept, 0.0) / static_cast<double>(kept) : 0;
}

}  // namespace tw
