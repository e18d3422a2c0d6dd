// The reducer without hooks: vectors of the caller's, which travel as gradients would. The way of
// strategies that move parameters themselves; the hot path is gradient_reducer.cc.
#include "core/base/clock.h"
#include "core/engine/gradient_reducer.h"

namespace tw {

StatusOr<ReduceOutcome> GradientReducer::Exchange(uint64_t step,
                                                  std::span<const TensorView> vectors,
                                                  std::span<double> sums, const TurnOptions& turn) {
  pipeline_.set_turn(turn);
  StartExchange(step, vectors, sums);
  StatusOr<ReduceOutcome> outcome = FinishExchange(sums);
  pipeline_.set_turn({});
  return outcome;
}

void GradientReducer::StartExchange(uint64_t step, std::span<const TensorView> vectors,
                                    std::span<const double> sums) {
  TW_CHECK(!armed_ && !exchanging_);
  TW_CHECK_EQ(vectors.size(), views_.size());
  exchanging_ = true;
  Start(step);
  for (Bucket& bucket : buckets_) {
    bucket.vectors.clear();
    for (int i : bucket.parameters) bucket.vectors.push_back(vectors[static_cast<size_t>(i)]);
  }
  control_.assign(sums.begin(), sums.end());
  control_.push_back(0);
  LaunchAgreedExchange();
}

StatusOr<ReduceOutcome> GradientReducer::FinishExchange(std::span<double> sums) {
  TW_CHECK(exchanging_);
  const double start = NowMs();
  const Status done = lane_->Wait();
  exchanging_ = false;
  TW_RETURN_IF_ERROR(done);
  return Outcome(start, sums);
}

}  // namespace tw
