#include "launch/cluster_model.h"

#include <algorithm>

namespace tw {
namespace {

// What TCP/IP over Ethernet leaves of a link (1448 of 1514 bytes).
constexpr double kPayloadShare = 0.956;
// One MPI thread moves no more than this through TCP (`bench exchange` on links without a limit).
constexpr double kMostBytesPerMs = 1.0e6;
// Handing over and receiving one message.
constexpr double kMessageMs = 0.015;
// The lane sleeps up to 0.5 ms between two looks while nothing moves.
constexpr double kLookMs = 0.25;

// One bucket on its way.
struct Flight {
  const BucketWork* work = nullptr;
  size_t stage = 0;
  double ready_ms = 0;
};

class Simulation {
 public:
  Simulation(const ClusterLink& link, StepPrediction* sums)
      : link_(link),
        bytes_per_ms_(std::min(link.bytes_per_ms * kPayloadShare, kMostBytesPerMs)),
        sums_(sums) {}

  // Returns when the last of `buckets` ends; ready[b]: when its gradients are complete.
  double Run(std::span<const BucketWork> buckets, std::span<const double> ready, size_t most) {
    size_t next = 0;
    double room_since = 0, end = 0;
    while (next < buckets.size() || !flights_.empty()) {
      if (next < buckets.size() && flights_.size() < most) {
        flights_.push_back({&buckets[next], 0, std::max(ready[next], room_since)});
        ++next;
        continue;
      }
      const auto first = std::min_element(
          flights_.begin(), flights_.end(),
          [](const Flight& a, const Flight& b) { return a.ready_ms < b.ready_ms; });
      Advance(*first);
      if (first->stage < first->work->stages.size()) continue;
      room_since = first->ready_ms;
      end = std::max(end, first->ready_ms);
      flights_.erase(first);
    }
    return end;
  }

 private:
  void Advance(Flight& flight) {
    const LaneStage& stage = flight.work->stages[flight.stage++];
    const double lane_ms = stage.lane_ms + stage.messages * kMessageMs;
    lane_free_ = std::max(lane_free_, flight.ready_ms) + lane_ms;
    const double wire_ms = stage.sent_bytes / bytes_per_ms_;
    sums_->lane_ms += lane_ms;
    sums_->wire_ms += wire_ms;
    sums_->sent_bytes += stage.sent_bytes;
    flight.ready_ms = lane_free_;
    if (stage.waits == 0) return;
    link_free_ = std::max(link_free_, lane_free_) + wire_ms;
    flight.ready_ms = link_free_ + stage.waits * (link_.latency_ms + kLookMs);
  }

  ClusterLink link_;
  double bytes_per_ms_;
  StepPrediction* sums_;
  std::vector<Flight> flights_;
  double lane_free_ = 0, link_free_ = 0;
};

}  // namespace

StepPrediction PredictStep(std::span<const BucketWork> buckets, const Arithmetic& arithmetic,
                           const ClusterLink& link, int ranks, int concurrent_buckets,
                           bool overlap) {
  int64_t numel = 0, done = 0;
  for (const BucketWork& bucket : buckets) numel += bucket.numel;
  const double backward_end = arithmetic.forward_ms + arithmetic.backward_ms;
  std::vector<double> ready;
  for (const BucketWork& bucket : buckets) {
    done += bucket.numel;
    const double share =
        overlap && numel > 0 ? static_cast<double>(done) / static_cast<double>(numel) : 1.0;
    ready.push_back(arithmetic.forward_ms + share * arithmetic.backward_ms);
  }
  StepPrediction out;
  Simulation simulation(link, &out);
  const double end = simulation.Run(buckets, ready, static_cast<size_t>(concurrent_buckets));
  out.exposed_ms = std::max(0.0, end - backward_end);
  if (ranks > 1) {  // the agreement, behind everything
    out.exposed_ms += link.latency_ms + kLookMs + (ranks - 1) * kMessageMs;
  }
  out.step_ms = arithmetic.sum_ms() + out.exposed_ms;
  return out;
}

}  // namespace tw
